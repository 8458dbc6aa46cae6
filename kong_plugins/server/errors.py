"""What can go wrong between Kong and a plugin."""

from kong_pdk.exception import PDKException


class PluginServerError(Exception):
    """The family of this package's failures."""


class WireError(PluginServerError):
    """Bytes that are no message of the protocol, or a value the protocol cannot carry."""


class PdkError(PluginServerError, PDKException):  # type: ignore[misc]  # kong-pdk has no types
    """A call to Kong could not be made or its answer could not be read. kong-pdk's plugins catch it as theirs."""


class ConnectionLostError(PdkError):
    """Kong closed the connection in the middle of an event: the request has ended there."""


class PluginLoadError(PluginServerError):
    """A plugin's module cannot be imported or is no plugin; the text is safe to log."""


class NoPluginError(PluginLoadError):
    """A module has no class `Plugin`: it is something else that lies beside plugins."""


class UnknownInstanceError(PluginServerError):
    """Kong named a plugin instance this server never started or has closed."""


class ResponseSent(BaseException):
    """Raised by `kong.response.exit`: the caller has its answer and Kong has gone. Never catch it."""


class EventTimeout(BaseException):
    """The event took longer than the server allows. No Exception, so that a plugin does not swallow it."""
