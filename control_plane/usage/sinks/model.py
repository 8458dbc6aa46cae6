"""What a sink is, and when something is sent again. Pure."""

import re
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from control_plane.foundation.clock import floor_hour
from control_plane.foundation.errors import ValidationFailedError
from control_plane.foundation.outgoing import check_url
from control_plane.usage.store.event_reads import FileFormat

MAX_PAUSE = timedelta(minutes=10)
FIRST_PAUSE = timedelta(seconds=1)
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,47}")


class SinkKind(StrEnum):
    """`http`: CloudEvents posted to a URL, hour by hour. `files`: a file a day in a directory of the server."""

    HTTP = "http"
    FILES = "files"


class SinkContent(StrEnum):
    """`events`: requests and reported events, one by one. `rollups`: rows of the hourly rollup."""

    EVENTS = "events"
    ROLLUPS = "rollups"


class DeliveryState(StrEnum):
    """Where an hour (or a day) stands with a sink. `failed`: the other side will never take it as it is."""

    WAITING = "waiting"
    SENT = "sent"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkFacts:
    """What people say of a sink. Hours from `since` on are sent. `url` for http, `file_format` for files."""

    name: str
    kind: SinkKind
    content: SinkContent
    since: datetime
    url: str | None = None
    file_format: FileFormat | None = None

    def __post_init__(self) -> None:
        """Raises ValidationFailedError naming the field."""
        if not _NAME.fullmatch(self.name):
            raise ValidationFailedError("name", "must be 1 to 48 of a-z, 0-9, _ and -, a letter first")
        if floor_hour(self.since) != self.since:
            raise ValidationFailedError("since", "must be a full hour (UTC)")
        if (self.kind is SinkKind.HTTP) != (self.url is not None):
            raise ValidationFailedError("url", "is needed for an http sink, and for no other")
        if (self.kind is SinkKind.FILES) != (self.file_format is not None):
            raise ValidationFailedError("file_format", "is needed for a files sink, and for no other")
        if self.url is not None:
            check_url(self.url)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"since": self.since.isoformat()}


@dataclass(frozen=True, slots=True, kw_only=True)
class SinksConfig:
    """How sinks are served.

    `authorizations`: the Authorization header of http sinks, by name; secrets stay in the environment. A batch
    ends at `batch_events` or about `batch_bytes`. A sink is sent up to `hours_per_claim` hours, or for
    `turn_seconds`, before all sinks are looked at again; an hour may take several turns. A day's file is written
    when `after_its_end` has passed and every hour of the day is sealed.
    """

    directory: Path
    authorizations: dict[str, str]
    allow_private: bool = False
    batch_events: int = 500
    batch_bytes: int = 1024 * 1024
    timeout_seconds: float = 30.0
    lease: timedelta = timedelta(minutes=2)
    hours_per_claim: int = 20
    turn_seconds: float = 20.0
    after_its_end: timedelta = timedelta(minutes=15)
    pause_seconds: float = 2.0
    fill_seconds: float = 10.0

    def __repr__(self) -> str:
        """Authorizations are left out."""
        return f"SinksConfig(directory={self.directory!r}, allow_private={self.allow_private!r})"


def pause_after(attempts: int, *, asked_seconds: float | None = None) -> timedelta:
    """Return how long to wait after so many failures in a row: 1 s, doubled each time, 10 minutes at most.

    What the other side asked for (Retry-After) is kept, up to the same bound.
    """
    own = min(MAX_PAUSE, FIRST_PAUSE * (1 << min(attempts - 1, 10)))
    asked = timedelta(seconds=asked_seconds or 0)
    return max(own, min(asked, MAX_PAUSE))


def is_taken(status: int) -> bool:
    return 200 <= status < 300  # noqa: PLR2004 - 2xx


def may_be_taken_later(status: int) -> bool:
    """Say whether sending the same again may help: what is wrong lies with the other side, or with our rights."""
    return status >= 500 or status in {401, 403, 404, 408, 409, 425, 429} or 300 <= status < 400  # noqa: PLR2004
