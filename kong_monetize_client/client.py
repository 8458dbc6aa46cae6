"""The client for programs with threads."""

import atexit
import threading
import time as clock
from collections.abc import Mapping
from datetime import datetime
from math import inf
from types import TracebackType
from typing import Self

import httpx

from kong_monetize_client.errors import FlushTimeoutError
from kong_monetize_client.options import Options
from kong_monetize_client.reports import Reports, endpoint_of, headers_of
from kong_monetize_client.sender import Request, Sender

CLOSE_TIMEOUT_SECONDS = 10.0
# what a thread that waits for nothing looks after itself by
_LONGEST_WAIT_SECONDS = 60.0


class Client:
    """Reports events from any thread; a thread of its own sends them.

    Where options name a directory, what was reported survives the process: the next client there sends it.
    """

    def __init__(self, url: str, token: str, *, source: str, options: Options | None = None) -> None:
        """`url` is the server's; `source` names this application, for ever: with its id it names an event.

        Raises:
            ValueError: an address or token that can be none.
            EventError: a source that the server would not take.
            DirectoryInUseError, OSError: the buffer's directory cannot be had.
        """
        self._endpoint, headers = endpoint_of(url), headers_of(token)
        self._reports = Reports(source)
        self._options = options or Options()
        self._sender = Sender(self._options)
        self._http = httpx.Client(headers=headers, timeout=self._options.timeout_seconds, follow_redirects=False)
        self._changed = threading.Condition()
        self._flush_up_to = 0
        self._close_by = inf
        self._thread = threading.Thread(target=self._run, name="kong-monetize-client", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def __repr__(self) -> str:
        return f"<Client {self._endpoint} waiting={self._sender.waiting}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def waiting(self) -> int:
        """How many events the server has not judged yet."""
        return self._sender.waiting

    def report(
        self,
        event_type: str,
        *,
        subject: str,
        units: Mapping[str, int] | None = None,
        properties: Mapping[str, str] | None = None,
        product: str | None = None,
        mode: str | None = None,
        endpoint: str | None = None,
        id: str | None = None,  # noqa: A002 - the word that CloudEvents has for it
        time: datetime | None = None,
    ) -> str:
        """Keep an event for sending and return its id; the network is not waited for.

        `subject`: account id, API key id, or the account's external id. Pass an `id` of your own (an order number)
        where the same thing could be reported twice: source and id count once.

        Raises:
            EventError: the server would not take it.
            BufferFullError, ClosedError: it was not kept.
        """
        event_id, line = self._reports.encode(
            event_type,
            subject=subject,
            units=units,
            properties=properties,
            product=product,
            mode=mode,
            endpoint=endpoint,
            id=id,
            time=time,
        )
        if self._sender.add(line, clock.monotonic()):
            with self._changed:
                self._changed.notify_all()
        return event_id

    def flush(self, timeout: float = 30.0) -> None:
        """Send everything that was reported until now, and wait until the server has judged it.

        Raises:
            FlushTimeoutError: it took longer; the sending goes on.
        """
        with self._changed:
            target = self._sender.added
            self._flush_up_to = max(self._flush_up_to, target)
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._sender.settled >= target, timeout):
                raise FlushTimeoutError(target - self._sender.settled)

    def close(self, timeout: float = CLOSE_TIMEOUT_SECONDS) -> int:
        """Send what waits, for `timeout` seconds at most, and stop. Returns how many events are left.

        In a directory they stay for the next client; in memory they are lost. Closing again changes nothing.
        """
        atexit.unregister(self.close)
        if self._reports.has_forked:
            return self._sender.waiting  # the thread, and what it may have locked, stayed with the parent
        with self._changed:
            self._close_by = min(self._close_by, clock.monotonic() + timeout)
            self._changed.notify_all()
        self._thread.join(timeout)
        left = self._sender.close()
        self._http.close()
        return left

    def _run(self) -> None:
        while True:
            with self._changed:
                request = self._next_request()
            if request is None:
                return
            self._send(request)
            with self._changed:
                self._changed.notify_all()

    def _next_request(self) -> Request | None:
        """Wait for a request, or until there is nothing left to do; holding the condition."""
        while True:
            now = clock.monotonic()
            closing = self._close_by < inf
            if now >= self._close_by:
                return None
            at_once = closing or self._sender.settled < self._flush_up_to
            found = self._sender.next(now, at_once=at_once)
            if isinstance(found, Request):
                return found
            if closing and found == inf:
                return None
            self._changed.wait(min(found, self._close_by - now, _LONGEST_WAIT_SECONDS))

    def _send(self, request: Request) -> None:
        left = max(0.1, self._close_by - clock.monotonic())
        timeout = min(self._options.timeout_seconds, left)
        try:
            answer = self._http.post(self._endpoint, content=request.body, timeout=timeout)
        except Exception as error:  # noqa: BLE001 - whatever it was, the events are still to be sent
            self._sender.fail(f"no answer: {type(error).__name__}: {error}", clock.monotonic())
        else:
            self._sender.settle(request, answer.status_code, answer.headers, answer.content, clock.monotonic())
