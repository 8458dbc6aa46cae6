"""`kong.request`: the request as the caller sent it."""

from kong_plugins.server import messages, wire
from kong_plugins.server.errors import PdkError
from kong_plugins.server.methods import METHODS
from kong_plugins.server.pdk.channel import Namespace, decode_number, encode_int

DEFAULT_MAX_ARGUMENTS = 100
_GET_HEADERS = METHODS["kong.request.get_headers"]
_GET_HEADER = METHODS["kong.request.get_header"]
_ENCODED_DEFAULT_MAX = encode_int(DEFAULT_MAX_ARGUMENTS)


class Request(Namespace):
    __slots__ = ()

    def get_scheme(self) -> str:
        return self._text("kong.request.get_scheme")

    def get_host(self) -> str:
        return self._text("kong.request.get_host")

    def get_port(self) -> int:
        return self._number("kong.request.get_port")

    def get_forwarded_scheme(self) -> str:
        return self._text("kong.request.get_forwarded_scheme")

    def get_forwarded_host(self) -> str:
        return self._text("kong.request.get_forwarded_host")

    def get_forwarded_port(self) -> int:
        return self._number("kong.request.get_forwarded_port")

    def get_http_version(self) -> float:
        return decode_number(self._channel.call(METHODS["kong.request.get_http_version"], b""))

    def get_method(self) -> str:
        return self._text("kong.request.get_method")

    def get_path(self) -> str:
        return self._text("kong.request.get_path")

    def get_path_with_query(self) -> str:
        return self._text("kong.request.get_path_with_query")

    def get_raw_query(self) -> str:
        return self._text("kong.request.get_raw_query")

    def get_query_arg(self, name: str) -> str | None:
        return self._text_or_none("kong.request.get_query_arg", wire.encode_string(name))

    def get_query(self, max_args: int = DEFAULT_MAX_ARGUMENTS) -> dict[str, wire.Json]:
        """Return the query's arguments; a repeated one is a list. `max_args` is 1 to 1000."""
        return self._struct("kong.request.get_query", encode_int(max_args))

    def get_header(self, name: str) -> str | None:
        """Return the header's first value, or None where it is missing or empty. Any case of the name will do."""
        reply = self._channel.call(_GET_HEADER, wire.encode_string(name))
        return wire.decode_string(reply) if reply else None

    def get_headers(self, max_headers: int = DEFAULT_MAX_ARGUMENTS) -> dict[str, wire.Json]:
        """Return all headers by lower-case name; a repeated one is a list. `max_headers` is 1 to 1000."""
        argument = _ENCODED_DEFAULT_MAX if max_headers == DEFAULT_MAX_ARGUMENTS else encode_int(max_headers)
        return wire.decode_struct(self._channel.call(_GET_HEADERS, argument))

    def get_raw_body(self) -> bytes:
        """Return the body; PdkError where Kong cannot give it. A large one may be read from Kong's buffer file."""
        reply = self._channel.call(METHODS["kong.request.get_raw_body"], b"")
        result = messages.decode("RawBodyResult", reply)
        if "error" in result:
            raise PdkError(f"kong.request.get_raw_body: {result['error']}")
        if "body_filepath" in result:
            return _read_body_file(result["body_filepath"])
        content: bytes = result.get("content", b"")
        return content

    def get_uri_captures(self) -> dict[str, object]:
        """Return `{"unnamed": [...], "named": {...}}`: what the route's regular expression caught."""
        reply = self._channel.call(METHODS["kong.request.get_uri_captures"], b"")
        captures = messages.decode("UriCapturesResult", reply)
        return {
            "unnamed": [wire.bytes_text(value) for value in captures["unnamed"]],
            "named": {
                entry.get("key", ""): wire.bytes_text(entry.get("value", b"")) for entry in captures["named"]
            },
        }


def _read_body_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - the path is Kong's, bytes and all
            return file.read()
    except OSError as error:
        raise PdkError("Kong's buffered request body cannot be read") from error
