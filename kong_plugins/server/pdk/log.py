"""`kong.log`: Kong's own log, and the record of the request."""

from gateway_contract.api_keys import redact_api_keys
from kong_plugins.server import wire
from kong_plugins.server.methods import METHODS
from kong_plugins.server.pdk.channel import Namespace, encode_pair


class Log(Namespace):
    """Calling it, `kong.log("...")`, logs a notice. API keys are masked; leave out all other secrets yourself."""

    __slots__ = ()

    def __call__(self, *parts: object) -> None:
        self.notice(*parts)

    def alert(self, *parts: object) -> None:
        self._write("kong.log.alert", parts)

    def crit(self, *parts: object) -> None:
        self._write("kong.log.crit", parts)

    def err(self, *parts: object) -> None:
        self._write("kong.log.err", parts)

    def warn(self, *parts: object) -> None:
        self._write("kong.log.warn", parts)

    def notice(self, *parts: object) -> None:
        self._write("kong.log.notice", parts)

    def info(self, *parts: object) -> None:
        self._write("kong.log.info", parts)

    def debug(self, *parts: object) -> None:
        self._write("kong.log.debug", parts)

    def set_serialize_value(self, key: str, value: object) -> None:
        """Put a value into what `serialize` and Kong's log plugins write; None takes the key out."""
        self._do("kong.log.set_serialize_value", encode_pair(key, value))

    def serialize(self) -> str:
        """Return Kong's record of the request as JSON. It holds the presented API key: never keep it whole."""
        return self._text("kong.log.serialize")

    def _write(self, method: str, parts: tuple[object, ...]) -> None:
        plain = [part if isinstance(part, int | float) else redact_api_keys(str(part)) for part in parts]
        self._channel.call(METHODS[method], wire.encode_list(plain))
