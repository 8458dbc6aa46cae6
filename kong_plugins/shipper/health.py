"""`/metrics`, `/healthz` (it runs) and `/readyz` (it gets its lines away) on a loopback port."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

# The longest a step may take: every call to Redis timing out, and some room.
STUCK_AFTER_SECONDS = 60.0


class Pulse:
    """When the shipper's loop last went round, and what it says of itself."""

    def __init__(self) -> None:
        self._beat_at = time.monotonic()
        self._state: dict[str, Any] = {"ready": False}

    def beat(self, **state: Any) -> None:
        self._beat_at, self._state = time.monotonic(), state

    def healthy(self) -> tuple[bool, dict[str, Any]]:
        silent_seconds = time.monotonic() - self._beat_at
        return silent_seconds < STUCK_AFTER_SECONDS, {"silent_seconds": round(silent_seconds, 3)}

    def ready(self) -> tuple[bool, dict[str, Any]]:
        state = self._state
        return bool(state["ready"]) and self.healthy()[0], state


class HealthServer:
    """Answers on 127.0.0.1 from threads of its own; port 0 takes any free one."""

    def __init__(self, *, port: int, registry: CollectorRegistry, pulse: Pulse) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(registry, pulse))
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(registry: CollectorRegistry, pulse: Pulse) -> type[BaseHTTPRequestHandler]:
    checks: dict[str, Callable[[], tuple[bool, dict[str, Any]]]] = {
        "/healthz": pulse.healthy,
        "/readyz": pulse.ready,
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            elif check := checks.get(self.path):
                well, state = check()
                self._answer(200 if well else 503, "application/json", json.dumps(state).encode())
            else:
                self._answer(404, "text/plain", b"/metrics, /healthz, /readyz\n")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing: probes come every few seconds."""

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
