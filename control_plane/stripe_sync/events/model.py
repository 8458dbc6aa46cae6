"""An event as it comes in, and the pauses between attempts to act on it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, TypeGuard

from control_plane.stripe_sync.events.allowlist import Kind, kind_of

MAX_ID: Final = 200
MAX_TYPE: Final = 200
NOT_READ: Final = "events of this type are not acted on"
_SNAPSHOT, _THIN = "event", "v2.core.event"
_PAUSES_SECONDS: Final = (1, 2, 4, 8, 15, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 14_400, 28_800)

MAX_ATTEMPTS: Final = len(_PAUSES_SECONDS) + 1
"""After so many failures, about 16 hours, an event is dead until somebody asks for it again."""

REFUSED_ATTEMPTS: Final = 6
"""Where Stripe itself refuses to show the object, half a minute decides."""


class State(StrEnum):
    """What became of an event."""

    WAITING = "waiting"
    DONE = "done"
    IGNORED = "ignored"
    DEAD = "dead"


class Source(StrEnum):
    """How we came to know of an event first."""

    WEBHOOK = "webhook"
    LIST = "list"
    REPLAY = "replay"
    RESYNC = "resync"


class Form(StrEnum):
    """What an endpoint takes: events with a snapshot of their object, or thin ones that only name it."""

    SNAPSHOT = "snapshot"
    THIN = "thin"


class WrongEventError(ValueError):
    """The body is no event of the form that was expected; says what is wrong, and repeats nothing of the body."""


@dataclass(frozen=True, slots=True)
class Told:
    """What we keep of an event. `kind` and `object_id` are None together: nothing is to be read."""

    id: str
    type: str
    created_at: datetime
    kind: Kind | None
    object_id: str | None


def parse_event(body: bytes, form: Form) -> Told:
    """Read what a webhook brought.

    Raises:
        WrongEventError: no JSON, not an event, or one of the other form.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise WrongEventError("the body is not JSON") from error
    if not isinstance(found, dict):
        raise WrongEventError("the body is not an event")
    if found.get("object") != (_SNAPSHOT if form is Form.SNAPSHOT else _THIN):
        raise WrongEventError(f"the body is not a {form} event")
    return told_of(found)


def told_of(event: Mapping[str, Any]) -> Told:
    """Return what we keep of an event of either form.

    Raises:
        WrongEventError: it has no id, type or time.
    """
    event_id, event_type, created = event.get("id"), event.get("type"), event.get("created")
    if not _is_text(event_id, MAX_ID) or not _is_text(event_type, MAX_TYPE):
        raise WrongEventError("the event has no id or no type")
    kind = kind_of(event_type)
    object_id = _object_of(event, kind)
    return Told(
        id=event_id,
        type=event_type,
        created_at=_moment(created),
        kind=kind if object_id else None,
        object_id=object_id,
    )


def _object_of(event: Mapping[str, Any], kind: Kind | None) -> str | None:
    if kind is None:
        return None
    if kind is Kind.METER_ERRORS:
        found: Any = event["id"]  # the errors stand in the event itself, which is read again
    elif event.get("object") == _THIN:
        related = event.get("related_object")
        found = related.get("id") if isinstance(related, Mapping) else None
    else:
        data = event.get("data")
        thing = data.get("object") if isinstance(data, Mapping) else None
        found = thing.get("id") if isinstance(thing, Mapping) else None
    if not _is_text(found, MAX_ID):
        raise WrongEventError("the event does not name its object")
    return found


def _is_text(value: object, longest: int) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= longest and value.isprintable()


def _moment(created: object) -> datetime:
    try:
        if isinstance(created, int) and not isinstance(created, bool):
            return datetime.fromtimestamp(created, UTC)
        if isinstance(created, str):
            moment = datetime.fromisoformat(created)
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise WrongEventError("the event's time makes no sense") from error
    raise WrongEventError("the event has no time")


def pause_after(attempts: int) -> timedelta:
    """Return how long to wait after so many failed attempts: from a second to eight hours."""
    return timedelta(seconds=_PAUSES_SECONDS[min(attempts, len(_PAUSES_SECONDS)) - 1])
