"""ClickHouse's HTTP interface before the embedded ClickHouse (chDB), in a process of its own; for tests.

What clickhouse-connect says over HTTP: the statement in `query` or in the body, parameters (`param_NAME`) and
settings in the address or in a form, bodies and answers plain or packed by lz4 or gzip. One user, no sessions, no
progress, answers whole. It is no ClickHouse server: no native protocol, no users, no cluster.
"""

import argparse
import base64
import gzip
import hmac
import json
import re
import signal
import threading
from collections.abc import Mapping
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import lz4.frame  # type: ignore[import-untyped]

from devstack.stores.clickhouse_engine import Engine, QueryError, Statement

# what belongs to a request and is no setting of the statement
_OF_REQUEST = {
    "query", "database", "user", "password", "query_id", "wait_end_of_query", "client_protocol_version",
    "buffer_size", "compress", "decompress", "quota_key", "role", "default_format", "enable_http_compression",
    "send_progress_in_http_headers", "http_headers_progress_interval_ms",
    "cancel_http_readonly_queries_on_client_close",
}  # fmt: skip
_INSERT_OF_BODY = re.compile(rb"\s*(INSERT\s+INTO\s.*?)\sFORMAT\s+(\w+)\s*?\n", re.IGNORECASE | re.DOTALL)
_FORMAT_SAID = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
_AUTHENTICATION_FAILED, _UNKNOWN_TABLE, _TIMEOUT = 516, 60, 159
_STATUS_OF_CODE = {
    _AUTHENTICATION_FAILED: 403,
    _UNKNOWN_TABLE: 404,
    _TIMEOUT: 408,
    47: 400,
    62: 400,
    36: 400,
    46: 404,
}


def read_statement(query: Mapping[str, str], form: Mapping[str, str], body: bytes) -> Statement:
    """Put a statement together from the address, a form's fields and the body.

    Raises:
        QueryError: there is none, or it needs what is not here.
    """
    given = {**query, **form}
    if "session_id" in given:
        raise QueryError("there are no sessions here")
    text, data = given.get("query", ""), b""
    if body and text:
        data = body
    elif body and (found := _INSERT_OF_BODY.match(body)) and found.end() < len(body):
        text, data = body[: found.end()].decode(), body[found.end() :]
    elif body:
        text = body.decode()
    if not text.strip():
        raise QueryError("there is no statement")
    parameters = {name[6:]: value for name, value in given.items() if name.startswith("param_")}
    settings = {
        name: value for name, value in given.items() if name not in _OF_REQUEST and not name.startswith("param_")
    }
    return Statement(text, parameters, settings, given.get("database", ""), data)


def unpacked(body: bytes, encoding: str) -> bytes:
    """Raises QueryError where the packing is unknown."""
    if encoding in {"", "identity"}:
        return body
    if encoding == "gzip":
        return gzip.decompress(body)
    if encoding != "lz4":
        raise QueryError(f"unknown Content-Encoding {encoding!r}")
    whole = b""
    while body:
        unpacking = lz4.frame.LZ4FrameDecompressor()
        whole += unpacking.decompress(body)
        body = unpacking.unused_data or b""
    return whole


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Server"

    def do_GET(self) -> None:
        if self.path == "/ping":
            self._answer(200, b"Ok.\n", {})
        else:
            self.do_POST()

    def do_POST(self) -> None:
        raw = self._body()
        query = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        try:
            self._authenticate(query)
            body = unpacked(raw, self.headers.get("Content-Encoding", ""))
            form: dict[str, str] = {}
            if (kind := self.headers.get("Content-Type", "")).startswith("multipart/form-data"):
                form, body = _form(kind, body), b""
            statement = read_statement(query, form, body)
            answer, summary = self.server.engine.run(statement)
        except QueryError as error:
            told = {"X-ClickHouse-Exception-Code": str(error.code)}
            self._answer(_STATUS_OF_CODE.get(error.code, 500), f"{error}\n".encode(), told)
            return
        said = _FORMAT_SAID.search(statement.text)
        told = {"X-ClickHouse-Summary": json.dumps(summary), "X-ClickHouse-Timezone": "UTC"}
        if answer or said:
            told["X-ClickHouse-Format"] = said[1] if said else "TabSeparated"
        self._answer(200, answer, told, packing=self._packing(query))

    def _packing(self, query: Mapping[str, str]) -> str:
        if query.get("enable_http_compression") != "1":
            return ""
        wanted = [name.strip() for name in self.headers.get("Accept-Encoding", "").split(",")]
        return next((name for name in wanted if name in {"lz4", "gzip"}), "")

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str], *, packing: str = "") -> None:
        if packing:
            body = lz4.frame.compress(body) if packing == "lz4" else gzip.compress(body, 1)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if packing:
            self.send_header("Content-Encoding", packing)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        pieces = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(pieces)

    def _authenticate(self, query: Mapping[str, str]) -> None:
        user, password = query.get("user", "default"), query.get("password", "")
        kind, _, text = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "basic":
            user, _, password = base64.b64decode(text).decode().partition(":")
        if user != "default" or not hmac.compare_digest(password.encode(), self.server.password.encode()):
            raise QueryError(f"{user}: Authentication failed", _AUTHENTICATION_FAILED)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing of requests."""


def _form(kind: str, body: bytes) -> dict[str, str]:
    message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    return {
        str(part.get_param("name", header="content-disposition")): str(part.get_content())
        for part in message.iter_parts()
    }


class Server(ThreadingHTTPServer):
    """Listens on 127.0.0.1."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, engine: Engine, *, port: int, password: str) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.engine = engine
        self.password = password


def main() -> None:
    parser = argparse.ArgumentParser(
        description="ClickHouse's HTTP interface over chDB, for development and tests."
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--password", default="")
    parser.add_argument("--memory-mb", type=int, default=2048)
    given = parser.parse_args()
    engine = Engine(given.directory, memory_mb=given.memory_mb)
    server = Server(engine, port=given.port, password=given.password)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    engine.close()


if __name__ == "__main__":
    main()
