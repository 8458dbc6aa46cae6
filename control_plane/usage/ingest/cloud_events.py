"""One CloudEvent 1.0 in JSON to a reported event, or to a reason why not. Pure."""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from control_plane.catalog.model import BUILT_IN_METERS
from control_plane.foundation.clock import to_ms
from control_plane.usage.ingest.model import (
    MAX_EVENT_BYTES,
    Code,
    ReportedEvent,
    Verdict,
    event_id_of,
    rejected,
)
from control_plane.usage.model import MAX_UNITS
from gateway_contract.api_keys import API_KEY_PATTERN
from gateway_contract.modes import Mode

MAX_ID_LENGTH = 256
MAX_TYPE_LENGTH = 200
MAX_SUBJECT_LENGTH = 200
MAX_ENDPOINT_LENGTH = 300
MAX_DIMENSIONS = 16
MAX_PROPERTIES = 32
MAX_PROPERTY_LENGTH = 256
HASH_BYTES = 16
# what an event's `timedby` says where its time is none of the sender's words, but our client's clock
TIMED_BY_CLIENT = "client"
UNIT_NAME = r"^[a-z][a-z0-9_]{0,31}$"
PROPERTY_NAME = r"^[A-Za-z][A-Za-z0-9_.-]{0,47}$"
PRODUCT_CODE = r"^[a-z][a-z0-9_-]{0,47}$"

_JSON_TYPE = re.compile(r"application/([a-z0-9.!#$&^_-]+\+)?json\s*(;.*)?", re.IGNORECASE)
# tokens of the admin API are as little for other eyes as API keys
_SECRET = re.compile(rf"{API_KEY_PATTERN.pattern}|kmt_[A-Za-z0-9_-]{{43}}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH)]
_Unit = Annotated[str, msgspec.Meta(pattern=UNIT_NAME)]
_PropertyName = Annotated[str, msgspec.Meta(pattern=PROPERTY_NAME)]
_PropertyText = Annotated[str, msgspec.Meta(max_length=MAX_PROPERTY_LENGTH)]


class _Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    product: Annotated[str, msgspec.Meta(pattern=PRODUCT_CODE)] | None = None
    mode: Literal["live", "test"] | None = None
    endpoint: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ENDPOINT_LENGTH)] | None = None
    units: Annotated[
        dict[_Unit, Annotated[int, msgspec.Meta(ge=0, le=MAX_UNITS)]], msgspec.Meta(max_length=MAX_DIMENSIONS)
    ] = {}
    properties: Annotated[dict[_PropertyName, _PropertyText], msgspec.Meta(max_length=MAX_PROPERTIES)] = {}


_NO_DATA = _Data()


class _CloudEvent(msgspec.Struct, frozen=True):
    """The attributes that we know. Others are extensions, and none of ours."""

    specversion: Literal["1.0"]
    id: _Id
    source: _Id
    type: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TYPE_LENGTH)]
    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SUBJECT_LENGTH)]
    time: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    timedby: Any = None
    datacontenttype: str | None = None
    data: _Data | None = None
    data_base64: str | None = None


class _Named(msgspec.Struct, frozen=True):
    """What can be said of an event that is otherwise wrong."""

    id: Any = None


_event_decoder = msgspec.json.Decoder(_CloudEvent)
_id_decoder = msgspec.json.Decoder(_Named)
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def read_event(raw: msgspec.Raw | bytes) -> ReportedEvent | Verdict:
    """Return the event, or the verdict that it is not well-formed. `raw` is JSON text."""
    size = len(memoryview(raw))
    if size > MAX_EVENT_BYTES:
        return rejected(Code.TOO_LARGE, f"An event may have at most {MAX_EVENT_BYTES:,} bytes.")
    try:
        event = _event_decoder.decode(raw)
    except _UNREADABLE as error:
        return rejected(Code.MALFORMED, _words(error))
    return judge(event, size=size)


def read_attributes(attributes: Mapping[str, str], data: bytes) -> ReportedEvent | Verdict:
    """Return the event of binary mode: attributes from headers, the body being its data (JSON, or empty)."""
    if len(data) > MAX_EVENT_BYTES:
        return rejected(Code.TOO_LARGE, f"An event may have at most {MAX_EVENT_BYTES:,} bytes.")
    try:
        body = {"data": msgspec.json.decode(data)} if data.strip() else {}
        event = msgspec.convert({**attributes, **body}, _CloudEvent)
    except _UNREADABLE as error:
        return rejected(Code.MALFORMED, _words(error))
    return judge(event, size=len(data))


def read_id(raw: msgspec.Raw | bytes) -> str | None:
    """Return the id of an event that is otherwise wrong, if it has one that may be shown."""
    try:
        found = _id_decoder.decode(raw).id
    except _UNREADABLE:
        return None
    usable = isinstance(found, str) and 0 < len(found) <= MAX_ID_LENGTH and not _SECRET.search(found)
    return found if usable else None


def judge(event: _CloudEvent, *, size: int) -> ReportedEvent | Verdict:
    """Return the event, or what forbids it though its form is right."""
    data = event.data or _NO_DATA
    texts = [event.id, event.source, event.type, event.subject, data.endpoint or ""]
    # names, too: a pattern's $ lets a line feed pass at the end
    every_text = " ".join([*texts, data.product or "", *data.units, *data.properties, *data.properties.values()])
    if _SECRET.search(every_text):
        return rejected(
            Code.HOLDS_A_KEY, "It holds an API key or a token, which must never be stored. Name keys by their id."
        )
    if _CONTROL.search(every_text):
        return rejected(Code.MALFORMED, "Texts must not hold control characters.")
    if event.data_base64 is not None or not _JSON_TYPE.fullmatch(event.datacontenttype or "application/json"):
        return rejected(Code.MALFORMED, "The data must be JSON, in `data`.")
    if reserved := BUILT_IN_METERS.intersection(data.units):
        return rejected(Code.RESERVED_UNIT, f"The gateway itself counts `{min(reserved)}`; use another name.")
    at_ms = None
    if event.time is not None:
        try:
            at_ms = to_ms(event.time.astimezone(UTC))
        except OverflowError:
            return rejected(Code.MALFORMED, "There is no such time in UTC.")
    return ReportedEvent(
        event_id=event_id_of(event.source, event.id),
        content_hash=_content_hash(event, data, at_ms),
        id=event.id,
        source=event.source,
        type=event.type,
        subject=event.subject,
        at_ms=at_ms,
        product=data.product or "",
        mode=Mode(data.mode) if data.mode else None,
        endpoint=data.endpoint or "",
        units=data.units,
        properties=data.properties,
        size=size,
    )


def _content_hash(event: _CloudEvent, data: _Data, at_ms: int | None) -> bytes:
    content = (
        event.type,
        event.subject,
        None if event.timedby == TIMED_BY_CLIENT else at_ms,
        data.product,
        data.mode,
        data.endpoint,
        sorted(data.units.items()),
        sorted(data.properties.items()),
    )
    return hashlib.sha256(msgspec.json.encode(content)).digest()[:HASH_BYTES]


def _words(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "It is nested too deeply."
    return f"{error}." if isinstance(error, msgspec.MsgspecError) else "It is not UTF-8."
