"""Around every request: an id for the logs, a limit on the body, metrics, and the last answer to a failure."""

import re
import secrets
import time

import structlog
from prometheus_client import Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from control_plane.admin_api.problems import internal_error

MAX_BODY_BYTES = 4 * 1024 * 1024
REQUEST_ID_HEADER = "X-Request-Id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")

REQUESTS = Counter("km_api_requests_total", "Requests answered.", ["method", "route", "status"])
SECONDS = Histogram("km_api_request_seconds", "Time to answer.", ["method", "route"])

log = structlog.stdlib.get_logger(__name__)


class BodyTooLargeError(HTTPException):
    """The body has more than MAX_BODY_BYTES. An HTTPException, since FastAPI lets nothing else out of a body."""

    def __init__(self) -> None:
        super().__init__(413, f"A body may have at most {MAX_BODY_BYTES:,} bytes.")


class RequestScope:
    """Outermost of our layers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        with bound_contextvars(request_id=request_id):
            await _Exchange(scope, receive, send, request_id).run(self.app)


class _Exchange:
    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self._request_id = request_id
        self._status = 0
        self._received = 0

    async def run(self, app: ASGIApp) -> None:
        started = time.perf_counter()
        try:
            await app(self.scope, self.receive, self.send)
        except Exception as error:
            await log.aerror("request_failed", exc_info=error, method=self.scope["method"], route=self._route())
            if self._status:
                raise  # the answer is under way: only a broken connection tells the caller now
            await internal_error()(self.scope, self._receive, self.send)
        finally:
            self._count(time.perf_counter() - started)

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            if self._received > MAX_BODY_BYTES:
                raise BodyTooLargeError
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = MutableHeaders(scope=message)
            headers[REQUEST_ID_HEADER] = self._request_id
            headers["X-Content-Type-Options"] = "nosniff"
            headers.setdefault("Cache-Control", "no-store")
        await self._send(message)

    def _route(self) -> str:
        return getattr(self.scope.get("route"), "path", "unmatched")

    def _count(self, seconds: float) -> None:
        method = self.scope["method"] if self.scope["method"] in _METHODS else "other"
        REQUESTS.labels(method, self._route(), self._status or 500).inc()
        SECONDS.labels(method, self._route()).observe(seconds)


_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
