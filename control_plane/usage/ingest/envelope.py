"""A request's body to the events in it. Pure; what a body may grow to is bounded while it is inflated."""

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote

import msgspec

from control_plane.usage.ingest.cloud_events import read_attributes, read_event, read_id
from control_plane.usage.ingest.model import MAX_EVENTS, MAX_INFLATED_BYTES, ReportedEvent, Verdict

SINGLE = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
_ENCODINGS = frozenset({"", "identity", "gzip"})
_HEADER = "ce-"
_GZIP = 31
_STEP_BYTES = 64 * 1024
_JSON = re.compile(r"application/([a-z0-9.!#$&^_-]+\+)?json")

_batch_decoder = msgspec.json.Decoder(list[msgspec.Raw])


class EnvelopeError(Exception):
    """The body as a whole cannot be taken; the message is a public sentence."""

    def __init__(self, kind: "Unreadable", message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class Unreadable(Enum):
    """How a body cannot be taken."""

    BROKEN = "broken"
    TOO_LARGE = "too_large"
    TYPE = "type"
    ENCODING = "encoding"


class Form(Enum):
    """How the events stand in a request."""

    SINGLE = "single"
    BATCH = "batch"
    BINARY = "binary"


@dataclass(frozen=True, slots=True)
class Sent:
    """What one request sent, in order: for each event its id, where it can be told, and the event or verdict."""

    form: Form
    ids: list[str | None]
    events: list[ReportedEvent | Verdict]


def form_of(content_type: str, *, has_attributes: bool) -> Form:
    """Return how the events stand in the request; `has_attributes` says that there is a header ce-specversion.

    Raises:
        EnvelopeError: a media type that is none of ours, or a charset that is not UTF-8.
    """
    media_type, _, parameters = content_type.partition(";")
    media_type = media_type.strip().lower()
    charset = re.search(r"charset\s*=\s*\"?([^\s\";]+)", parameters, re.IGNORECASE)
    if charset and charset[1].lower() not in {"utf-8", "us-ascii"}:
        raise EnvelopeError(Unreadable.TYPE, "The charset must be utf-8.")
    if media_type == SINGLE:
        return Form.SINGLE
    if media_type == BATCH:
        return Form.BATCH
    if has_attributes and (not media_type or _JSON.fullmatch(media_type)):
        return Form.BINARY
    raise EnvelopeError(
        Unreadable.TYPE, f"Send {SINGLE}, {BATCH}, or JSON data with the event's attributes in ce-… headers."
    )


def read_body(body: bytes, *, encoding: str, form: Form, headers: Iterable[tuple[str, str]] = ()) -> Sent:
    """Return the events of a body. `headers` (lower-case names) matter in binary mode only.

    Raises:
        EnvelopeError: encoding unknown, body broken or too large, not the JSON of its form, too many events.
    """
    encoding = encoding.strip().lower()
    if encoding not in _ENCODINGS:
        raise EnvelopeError(Unreadable.ENCODING, "Send the body as it is, or with Content-Encoding: gzip.")
    if encoding == "gzip":
        body = inflate(body, limit=MAX_INFLATED_BYTES)
    if form is Form.BINARY:
        return _read_binary(body, headers)
    if form is Form.SINGLE:
        event = read_event(body)
        return Sent(form, [event.id if isinstance(event, ReportedEvent) else read_id(body)], [event])
    return _read_batch(body)


def inflate(body: bytes, *, limit: int) -> bytes:
    """Return a gzip body inflated, stopping as soon as it passes `limit` bytes.

    Raises:
        EnvelopeError: it is no gzip, ends early, has something after its end, or is too large.
    """
    parts: list[bytes] = []
    size = 0
    while body:
        reader = zlib.decompressobj(_GZIP)
        while not reader.eof:
            try:
                part = reader.decompress(body, _STEP_BYTES)
            except zlib.error as error:
                raise EnvelopeError(Unreadable.BROKEN, "The body is not the gzip it says it is.") from error
            size += len(part)
            if size > limit:
                raise EnvelopeError(Unreadable.TOO_LARGE, f"A body may have at most {limit:,} bytes, inflated.")
            parts.append(part)
            body = reader.unconsumed_tail
            if not part and not body and not reader.eof:
                raise EnvelopeError(Unreadable.BROKEN, "The gzip body ends early.")
        body = reader.unused_data  # a gzip file may have several members
    return b"".join(parts)


def _read_batch(body: bytes) -> Sent:
    try:
        raws = _batch_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise EnvelopeError(Unreadable.BROKEN, "The body is not a JSON array of events.") from error
    if len(raws) > MAX_EVENTS:
        raise EnvelopeError(Unreadable.TOO_LARGE, f"A request may hold at most {MAX_EVENTS:,} events.")
    events = [read_event(raw) for raw in raws]
    ids = [
        event.id if isinstance(event, ReportedEvent) else read_id(raw)
        for event, raw in zip(events, raws, strict=True)
    ]
    return Sent(Form.BATCH, ids, events)


def _read_binary(body: bytes, headers: Iterable[tuple[str, str]]) -> Sent:
    """Read an event whose attributes stand in headers, percent-encoded where they are not plain ASCII."""
    attributes: dict[str, str] = {}
    for name, value in headers:
        attribute = name.removeprefix(_HEADER)
        if not name.startswith(_HEADER):
            continue
        if attribute in attributes:
            raise EnvelopeError(Unreadable.BROKEN, f"The header {name} is given more than once.")
        try:
            attributes[attribute] = unquote(value, errors="strict")
        except UnicodeDecodeError as error:
            raise EnvelopeError(Unreadable.BROKEN, f"The header {name} is not percent-encoded UTF-8.") from error
    attributes.pop("data", None)  # no attribute may have that name
    event = read_attributes(attributes, body)
    return Sent(Form.BINARY, [attributes.get("id") if isinstance(event, ReportedEvent) else None], [event])
