"""A server that takes events as the real one does, and fails as it is told to."""

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

TOKEN = "kmt_" + "t" * 43
# what a plan step may say: a status with headers and body, or how the connection ends
DROP_BEFORE = "drop before"
DROP_AFTER = "drop after"
Step = str | tuple[int, dict[str, str], bytes]


@dataclass
class Server:
    """Keeps events by id. `plan` says what the next requests meet; when it is at its end, all is well.

    Of events named in `reject` it says so. More than `most` at a time are too many, and more than
    `most_on_the_way` for a proxy before it, which gives no reason that the client knows.
    """

    url: str = ""
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    batches: list[list[dict[str, Any]]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    plan: list[Step] = field(default_factory=list)
    reject: dict[str, tuple[str, str]] = field(default_factory=dict)
    most: int = 1000
    most_on_the_way: int = 1000
    gate: threading.Event = field(default_factory=threading.Event)
    guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def ids(self) -> list[str]:
        return list(self.events)

    def take(self, body: bytes) -> tuple[int, bytes]:
        batch = json.loads(gzip.decompress(body))
        if len(batch) > self.most_on_the_way:
            return 413, b"<html>"
        if len(batch) > self.most:
            return 413, problem("body_too_large")
        results = []
        for index, event in enumerate(batch):
            code, message = self.reject.get(event["id"], ("", ""))
            result = "rejected" if code else "duplicate" if event["id"] in self.events else "accepted"
            if result == "accepted":
                self.events[event["id"]] = event
            elif result == "duplicate" and self.events[event["id"]] != event:
                result, code, message = "conflict", "conflict", "other content"
            results.append({"index": index, "id": event["id"], "result": result, "code": code, "message": message})
        self.batches.append(batch)
        status = 200 if all(found["result"] in {"accepted", "duplicate"} for found in results) else 207
        return status, json.dumps({"results": results}).encode()


def problem(code: str) -> bytes:
    return json.dumps({"code": code, "detail": f"said {code}"}).encode()


def handler_of(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 65_536  # an answer in two packets would wait for the client's acknowledgement

        def do_POST(self) -> None:
            server.gate.wait(30)
            body = self.rfile.read(int(self.headers["content-length"]))
            with server.guard:
                server.headers.append({name.lower(): value for name, value in self.headers.items()})
                step = server.plan.pop(0) if server.plan else None
                if step == DROP_BEFORE:
                    self.close_connection = True
                    return
                status, answer = step[0::2] if isinstance(step, tuple) else server.take(body)
            if step == DROP_AFTER:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in step[1].items() if isinstance(step, tuple) else ():
                self.send_header(name, value)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_arguments: Any) -> None:
            pass

    return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.gate.set()
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(server))
    http.daemon_threads = True
    thread = threading.Thread(target=lambda: http.serve_forever(poll_interval=0.02))
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    yield server
    server.gate.set()
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def refuses() -> Callable[..., Step]:
    """Makes steps that answer with a problem."""

    def make(status: int, code: str = "", **headers: str) -> Step:
        return status, {name.replace("_", "-"): value for name, value in headers.items()}, problem(code)

    return make
