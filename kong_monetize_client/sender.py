"""The heart of both clients: which events are sent when, and what an answer does. It talks to no network.

A client asks `next`: it is given a request to send, or told how long to wait. It says what came back by `settle`
or `fail`. `add` may be called from any thread meanwhile.
"""

import gzip
import json
import logging
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import TypeVar

from kong_monetize_client.answers import Settled, TooMuch, TryAgain, meaning_of
from kong_monetize_client.buffers import Buffer, Entry, MemoryBuffer
from kong_monetize_client.disk_buffer import DiskBuffer
from kong_monetize_client.errors import ClosedError
from kong_monetize_client.options import Options, Rejected

CONTENT_TYPE = "application/cloudevents-batch+json"
PATH = "/ingest/v1/events"
# after a batch that was too large: in so many good ones to full size again
GROWTH_STEPS = 20

Told = TypeVar("Told")

log = logging.getLogger("kong_monetize_client")


@dataclass(frozen=True, slots=True)
class Request:
    """One batch to be sent as it is, as often as it takes."""

    entries: Sequence[Entry]
    body: bytes
    picked_at: float


class Sender:
    """One at a time has a request under way. Times are seconds of a clock that never goes back."""

    def __init__(self, options: Options, *, chance: Callable[[], float] = random.random) -> None:
        """Open the buffer; raises DirectoryInUseError or OSError where that cannot be."""
        self._options = options
        self._chance = chance
        self._guard = threading.Lock()
        self._buffer = _open_buffer(options)
        self._closed = False
        self._added = self._buffer.count
        self._settled = 0
        self._events_at_once = options.max_events
        self._bytes_waiting = 0
        # what an earlier process has left goes first, and at once
        self._oldest_at = -inf if self._buffer.count else inf
        self._not_before = -inf
        self._failures = 0

    @property
    def added(self) -> int:
        """How many events have come, those of an earlier process too."""
        return self._added

    @property
    def settled(self) -> int:
        """How many of them the server has judged; they are judged in the order in which they came."""
        return self._settled

    @property
    def waiting(self) -> int:
        return self._added - self._settled

    def add(self, line: bytes, now: float) -> bool:
        """Keep an event; say whether a batch is full now, or has begun to wait.

        Raises:
            BufferFullError, ClosedError: it was not kept.
        """
        with self._guard:
            if self._closed:
                raise ClosedError("the client is closed")
            self._buffer.append(line)
            self._added += 1
            self._bytes_waiting += len(line) + 1
            first = self._oldest_at == inf
            if first:
                self._oldest_at = now
            return first or self._is_full()

    def next(self, now: float, *, at_once: bool = False) -> Request | float:
        """Return a request to send, or the seconds to wait for one; `at_once`: however few events wait."""
        try:
            with self._guard:
                if self._closed or not self._buffer.count:
                    return inf
                due_at = -inf if at_once or self._is_full() else self._oldest_at + self._options.max_age_seconds
                due_at = max(due_at, self._not_before)
                if due_at > now:
                    return due_at - now
                entries = self._buffer.peek(max_events=self._events_at_once, max_bytes=self._options.max_bytes)
        except OSError as error:  # too many open files, say: it passes
            self._again(TryAgain(f"the buffer's disk: {error.strerror}"), now)
            return self._not_before - now
        if not entries:
            return inf
        body = gzip.compress(b"[" + b",".join(entry.line for entry in entries) + b"]", compresslevel=5, mtime=0)
        return Request(entries, body, now)

    def settle(self, request: Request, status: int, headers: Mapping[str, str], body: bytes, now: float) -> None:
        """Take in an answer of whatever kind."""
        sent = len(request.entries)
        meaning = meaning_of(status, headers, body, sent=sent, now=datetime.now(UTC))
        if isinstance(meaning, TooMuch) and sent > 1:
            self._events_at_once = max(1, sent // 2)
            self._tell_error(f"{status} {meaning.code}: {meaning.message}; sends {self._events_at_once} at a time")
        elif isinstance(meaning, TooMuch):
            self._judged(request, {0: (meaning.code, meaning.message)}, now)
        elif isinstance(meaning, Settled):
            self._judged(request, meaning.rejected, now)
        else:
            if meaning.fewer:
                self._events_at_once = max(1, sent // 2)
            self._again(meaning, now)

    def fail(self, reason: str, now: float) -> None:
        """Take in that there was no answer: the same events are sent again."""
        self._again(TryAgain(reason), now)

    def close(self) -> int:
        """Let go of the buffer and return how many events wait: on disk, or lost with the memory."""
        with self._guard:
            if not self._closed:
                self._closed = True
                self._buffer.close()
            return self.waiting

    def _judged(self, request: Request, rejected: Mapping[int, tuple[str, str]], now: float) -> None:
        told = [
            Rejected(json.loads(request.entries[index].line), code, message)
            for index, (code, message) in sorted(rejected.items())
        ]
        try:
            with self._guard:
                if self._closed:
                    return  # nobody is there to note it: these are sent again, and known
                if told:
                    self._buffer.keep_rejected([_rejected_line(found) for found in told])
                self._buffer.drop(request.entries)
                self._settled += len(request.entries)
                self._bytes_waiting = max(
                    0, self._bytes_waiting - sum(len(entry.line) + 1 for entry in request.entries)
                )
                # what is left came after this batch was picked
                self._oldest_at = request.picked_at if self._buffer.count else inf
        except OSError as error:
            self._again(TryAgain(f"the buffer's disk: {error.strerror}"), now)
            return
        self._failures = 0
        more = max(1, self._options.max_events // GROWTH_STEPS)
        self._events_at_once = min(self._options.max_events, self._events_at_once + more)
        for found in told:
            log.error("event %s was rejected: %s: %s", found.event["id"], found.code, found.message)
            _call(self._options.on_rejected, found)

    def _again(self, why: TryAgain, now: float) -> None:
        pause = min(
            self._options.longest_pause_seconds, self._options.first_pause_seconds * 2.0 ** min(self._failures, 30)
        )
        self._failures += 1
        self._not_before = now + max(why.seconds, pause * (0.5 + 0.5 * self._chance()))
        self._tell_error(why.reason)

    def _tell_error(self, reason: str) -> None:
        log.warning("events are not sent yet (attempt %d): %s", self._failures, reason)
        _call(self._options.on_error, reason)

    def _is_full(self) -> bool:
        return self._buffer.count >= self._events_at_once or self._bytes_waiting >= self._options.max_bytes


def _open_buffer(options: Options) -> Buffer:
    if options.directory is None:
        return MemoryBuffer(max_bytes=options.max_buffer_bytes)
    return DiskBuffer(Path(options.directory), max_bytes=options.max_buffer_bytes, fsync=options.fsync)


def _rejected_line(found: Rejected) -> bytes:
    line = {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "code": found.code,
        "message": found.message,
        "event": found.event,
    }
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode()


def _call(callback: Callable[[Told], None] | None, told: Told) -> None:
    """Call back; what it raises must not stop the sending."""
    if callback is None:
        return
    try:
        callback(told)
    except Exception:
        log.exception("a callback failed")
