"""What can go wrong, as the caller sees it. Network failures are not here: they are retried behind the scenes."""


class KongMonetizeError(Exception):
    """The family of this package's errors."""


class EventError(KongMonetizeError, ValueError):
    """The event is not one that the server takes; nothing was kept of it."""


class BufferFullError(KongMonetizeError):
    """The event was not kept: the buffer, or its disk, is full. The application decides what becomes of it."""


class DirectoryInUseError(KongMonetizeError):
    """Another client, here or in another process, has this buffer directory."""


class ClosedError(KongMonetizeError):
    """The client was closed, or made before the process forked."""


class FlushTimeoutError(KongMonetizeError, TimeoutError):
    """Not everything was sent in time; `left` events still wait, and go on being sent."""

    def __init__(self, left: int) -> None:
        super().__init__(f"{left} events are not sent yet")
        self.left = left
