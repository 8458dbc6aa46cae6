"""`kong.response`: the answer to the caller."""

import json
from collections.abc import Mapping
from typing import NoReturn, TypeAlias

from kong_plugins.server import wire
from kong_plugins.server.errors import ResponseSent, WireError
from kong_plugins.server.methods import METHODS
from kong_plugins.server.pdk.channel import Headers, Namespace, encode_int, encode_pair
from kong_plugins.server.pdk.request import DEFAULT_MAX_ARGUMENTS

_SET_HEADERS = METHODS["kong.response.set_headers"]
Body: TypeAlias = "bytes | str | Mapping[str, object] | list[object] | tuple[object, ...] | None"
_JSON = "application/json; charset=utf-8"


class Response(Namespace):
    __slots__ = ()

    def get_status(self) -> int:
        return self._number("kong.response.get_status")

    def get_header(self, name: str) -> str | None:
        return self._text_or_none("kong.response.get_header", wire.encode_string(name))

    def get_headers(self, max_headers: int = DEFAULT_MAX_ARGUMENTS) -> Headers:
        return self._headers("kong.response.get_headers", max_headers)

    def get_source(self) -> str:
        """Return `exit`, `error` or `service`: who made the answer."""
        return self._text("kong.response.get_source")

    def set_status(self, status: int) -> None:
        self._do("kong.response.set_status", encode_int(status))

    def set_header(self, name: str, value: object) -> None:
        self._do("kong.response.set_header", encode_pair(name, value))

    def add_header(self, name: str, value: object) -> None:
        self._do("kong.response.add_header", encode_pair(name, value))

    def clear_header(self, name: str) -> None:
        self._do("kong.response.clear_header", wire.encode_string(name))

    def set_headers(self, headers: Mapping[str, object]) -> None:
        self._channel.call(_SET_HEADERS, wire.encode_struct(headers))

    def exit(
        self,
        status: int,
        body: Body = None,
        headers: Mapping[str, object] | None = None,
    ) -> NoReturn:
        """Answer the caller and end the request. Does not return; a plugin still writes `return` behind it.

        A mapping or a list as body is sent as JSON with its content type.
        """
        self._channel.exit(encode_exit(status, body, headers))
        raise ResponseSent

    def error(
        self, status: int, message: str | None = None, headers: Mapping[str, object] | None = None
    ) -> NoReturn:
        """Answer with `{"message": ...}`; the protocol has no call of its own for it."""
        self.exit(status, {"message": message or "An unexpected error occurred"}, headers)


def encode_exit(status: int, body: Body, headers: Mapping[str, object] | None) -> bytes:
    """Return an `ExitArgs` message."""
    if isinstance(body, Mapping | list | tuple):
        try:
            data = json.dumps(body).encode()
        except (TypeError, ValueError) as error:
            raise WireError("the body is no JSON") from error
        if not any(name.lower() == "content-type" for name in headers or ()):
            headers = {**(headers or {}), "Content-Type": _JSON}
    else:
        data = wire.text_bytes(body) if isinstance(body, str) else bytes(body or b"")
    out = encode_int(status)
    if data:
        out += wire.field(2, data)
    if headers:
        out += wire.field(3, wire.encode_struct(headers))
    return out
