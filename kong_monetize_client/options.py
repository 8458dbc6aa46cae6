"""How events are gathered and sent."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Fsync = Literal["never", "always"]


@dataclass(frozen=True, slots=True)
class Rejected:
    """An event that the server will never take, with its reason. `code` is stable, `message` is for people."""

    event: Mapping[str, Any]
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A batch is sent when it has `max_events` or `max_bytes`, or when its oldest event is `max_age_seconds` old.

    `directory`: where events wait until the server has them; they survive the process. Without one they wait in
    memory and die with it. `max_buffer_bytes` bounds what waits and what was rejected; on disk, what was sent of a
    segment (8 MiB) comes on top. `fsync`: `never` survives the death of the process, `always` that of the machine
    too, at the price of a disk write for each event.
    Retries wait `first_pause_seconds`, then twice as long each time up to `longest_pause_seconds`, less up to half
    of it by chance; never less than the server asks for.
    `on_rejected` is told of events that the server will never take, `on_error` of attempts that failed and are
    repeated. Both are called from the sending thread or task; they should be quick and must not raise.
    """

    directory: Path | str | None = None
    max_buffer_bytes: int = 256 * 1024 * 1024
    fsync: Fsync = "never"
    max_events: int = 500
    max_bytes: int = 900_000
    max_age_seconds: float = 1.0
    timeout_seconds: float = 30.0
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 60.0
    on_rejected: Callable[[Rejected], None] | None = None
    on_error: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        """Raises ValueError where an option makes no sense."""
        if not 1 <= self.max_events <= 1000:  # noqa: PLR2004 - the server's bound
            raise ValueError("max_events must be 1 to 1,000")
        if self.fsync not in {"never", "always"}:
            raise ValueError("fsync must be 'never' or 'always'")
        if min(self.max_bytes, self.max_buffer_bytes, self.timeout_seconds, self.first_pause_seconds) <= 0:
            raise ValueError("sizes and times must be positive")
        if self.longest_pause_seconds < self.first_pause_seconds:
            raise ValueError("longest_pause_seconds must be at least first_pause_seconds")
