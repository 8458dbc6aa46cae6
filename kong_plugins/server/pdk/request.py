"""`kong.request`: the request as the caller sent it."""

from typing import Any, TypedDict, cast

from kong_plugins.server import messages, wire
from kong_plugins.server.errors import PdkError
from kong_plugins.server.methods import METHODS
from kong_plugins.server.pdk.bodies import decode_body
from kong_plugins.server.pdk.channel import Arguments, Headers, Namespace, decode_number, encode_int

DEFAULT_MAX_ARGUMENTS = 100
_GET_HEADERS = METHODS["kong.request.get_headers"]
_GET_HEADER = METHODS["kong.request.get_header"]


class UriCaptures(TypedDict):
    unnamed: list[str]
    named: dict[str, str]


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

    def get_query(self, max_args: int = DEFAULT_MAX_ARGUMENTS) -> Arguments:
        """Return the query's arguments; a repeated one is a list. `max_args` is 1 to 1000."""
        reply = self._channel.call(METHODS["kong.request.get_query"], encode_int(max_args))
        return cast("Arguments", wire.decode_struct(reply))

    def get_header(self, name: str) -> str | None:
        """Return the header's first value, or None where it is missing or empty. Any case of the name will do."""
        reply = self._channel.call(_GET_HEADER, wire.encode_string(name))
        return wire.decode_string(reply) if reply else None

    def get_headers(self, max_headers: int = DEFAULT_MAX_ARGUMENTS) -> Headers:
        """Return all headers by lower-case name; a repeated one is a list. `max_headers` is 1 to 1000."""
        headers: Any = wire.decode_struct(self._channel.call(_GET_HEADERS, encode_int(max_headers)))
        return headers  # type: ignore[no-any-return]  # a cast would be one call more on the hot path

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

    def get_body(self, mimetype: str | None = None, max_args: int = DEFAULT_MAX_ARGUMENTS) -> Any:  # noqa: ARG002 - the PDK's signature
        """Return the body as the request's content type, or the given one, has it: a form or JSON.

        Raises PdkError for any other. The protocol has no call for it: costs two.
        """
        return decode_body(self.get_raw_body(), mimetype or self.get_header("content-type"))

    def get_raw_path(self) -> str:
        """Return the path as the caller wrote it, less the query."""
        uri = self._text("kong.nginx.get_var", wire.encode_string("request_uri"))
        return uri.partition("?")[0]

    def get_start_time(self) -> int:
        """Return the request's start in milliseconds since the epoch."""
        return round(decode_number(self._channel.call(METHODS["kong.nginx.req_start_time"], b"")) * 1000)

    def get_uri_captures(self) -> UriCaptures:
        """Return what the route's regular expression caught."""
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
