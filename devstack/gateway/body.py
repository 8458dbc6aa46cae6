"""A body on its way through: pieces in, pieces out, with back-pressure."""

import asyncio
from collections import deque
from collections.abc import Callable

HIGH_WATER_BYTES = 256 * 1024
MAX_DISCARDED_BYTES = 1024 * 1024


class BodyBrokenError(Exception):
    """The body ended before it was complete."""


class BodyStream:
    """Filled by a parser, read by one task."""

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._pause = pause
        self._resume = resume
        self._pieces: deque[bytes] = deque()
        self._buffered = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._broken = False
        self.received = 0
        self.complete = False
        self.was_read = False
        self.on_first_read: Callable[[], None] | None = None

    @property
    def has_data(self) -> bool:
        """A read would not have to wait."""
        return bool(self._pieces) or self.complete or self._broken

    def feed(self, data: bytes) -> None:
        self.received += len(data)
        self._buffered += len(data)
        self._pieces.append(data)
        if self._buffered > HIGH_WATER_BYTES and not self._paused:
            self._paused = True
            self._pause()
        self._wake()

    def feed_end(self) -> None:
        self.complete = True
        self._wake()

    def feed_broken(self) -> None:
        """The sender is gone; harmless when the body was complete."""
        if not self.complete:
            self._broken = True
            self._wake()

    async def read(self) -> bytes:
        """The next piece, b"" at the end. Raises BodyBrokenError when the sender left before that."""
        if not self.was_read:
            self.was_read = True
            if self.on_first_read is not None and not self.has_data:
                self.on_first_read()
        while not self._pieces:
            if self.complete:
                return b""
            if self._broken:
                raise BodyBrokenError
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        data = self._pieces.popleft()
        self._buffered -= len(data)
        if self._paused and self._buffered < HIGH_WATER_BYTES // 2:
            self._paused = False
            self._resume()
        return data

    async def read_all(self) -> bytes:
        pieces = []
        while data := await self.read():
            pieces.append(data)
        return b"".join(pieces)

    def put_back(self, data: bytes) -> None:
        """Let the next read return `data` again."""
        if data:
            self._pieces.appendleft(data)
            self._buffered += len(data)

    async def discard(self) -> bool:
        """Read to the end and forget. False when there is too much of it, or its sender left."""
        discarded = 0
        while not (self.complete and not self._pieces):
            try:
                discarded += len(await self.read())
            except BodyBrokenError:
                return False
            if discarded > MAX_DISCARDED_BYTES:
                return False
        return True

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
            self._waiter = None
