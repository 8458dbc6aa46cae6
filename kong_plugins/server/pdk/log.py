"""`kong.log`: Kong's own log, and the record of the request."""

from collections.abc import Mapping

from gateway_contract.api_keys import redact_api_keys
from kong_plugins.server import wire
from kong_plugins.server.methods import METHODS
from kong_plugins.server.pdk.channel import Namespace, encode_pair


class Log(Namespace):
    """Calling it, `kong.log("...")`, logs a notice. API keys are masked; leave out all other secrets yourself."""

    __slots__ = ()

    def __call__(self, *args: object) -> None:
        self.notice(*args)

    def alert(self, *args: object) -> None:
        self._write("kong.log.alert", args)

    def crit(self, *args: object) -> None:
        self._write("kong.log.crit", args)

    def err(self, *args: object) -> None:
        self._write("kong.log.err", args)

    def warn(self, *args: object) -> None:
        self._write("kong.log.warn", args)

    def notice(self, *args: object) -> None:
        self._write("kong.log.notice", args)

    def info(self, *args: object) -> None:
        self._write("kong.log.info", args)

    def debug(self, *args: object) -> None:
        self._write("kong.log.debug", args)

    def deprecation(self, *args: object) -> None:
        """Log a warning; the protocol has no call of its own for it."""
        self.warn("deprecation: ", *[part for part in args if not isinstance(part, Mapping)])

    def set_serialize_value(self, key: str, value: object) -> None:
        """Put a value into what `serialize` and Kong's log plugins write; None takes the key out."""
        self._do("kong.log.set_serialize_value", encode_pair(key, value))

    def serialize(self) -> str:
        """Return Kong's record of the request as JSON. It holds the presented API key: never keep it whole."""
        return self._text("kong.log.serialize")

    def _write(self, method: str, args: tuple[object, ...]) -> None:
        plain = [part if isinstance(part, int | float) else redact_api_keys(str(part)) for part in args]
        self._channel.call(METHODS[method], wire.encode_list(plain))
