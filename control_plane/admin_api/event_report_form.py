"""How a body of reported events looks, for the OpenAPI document; `usage.ingest` is what reads it."""

from typing import Any

from control_plane.usage.ingest import cloud_events
from control_plane.usage.ingest.envelope import BATCH, SINGLE
from control_plane.usage.ingest.model import MAX_EVENTS
from control_plane.usage.model import MAX_UNITS

EXAMPLE = {
    "specversion": "1.0",
    "id": "order-4711",
    "source": "/shop/checkout",
    "type": "com.example.transaction.completed",
    "subject": "customer-42",
    "time": "2026-11-23T09:00:00Z",
    "data": {"product": "payments", "units": {"transactions": 1}, "properties": {"country": "NO"}},
}


def _text(length: int, description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": length, "description": description, **more}


DATA: dict[str, Any] = {
    "type": ["object", "null"],
    "additionalProperties": False,
    "properties": {
        "product": {
            "type": ["string", "null"],
            "pattern": cloud_events.PRODUCT_CODE,
            "description": "Code of the API product; needed where the account has several subscriptions.",
        },
        "mode": {
            "enum": ["live", "test", None],
            "description": "`live` unless the subject is a test key; test events are never billed.",
        },
        "endpoint": {
            "type": ["string", "null"],
            "minLength": 1,
            "maxLength": cloud_events.MAX_ENDPOINT_LENGTH,
            "description": "Where it stands in figures by endpoint; its type if left out.",
        },
        "units": {
            "type": "object",
            "maxProperties": cloud_events.MAX_DIMENSIONS,
            "propertyNames": {"pattern": cloud_events.UNIT_NAME},
            "additionalProperties": {"type": "integer", "minimum": 0, "maximum": MAX_UNITS},
            "description": "What meters and prices count, by name.",
        },
        "properties": {
            "type": "object",
            "maxProperties": cloud_events.MAX_PROPERTIES,
            "propertyNames": {"pattern": cloud_events.PROPERTY_NAME},
            "additionalProperties": {"type": "string", "maxLength": cloud_events.MAX_PROPERTY_LENGTH},
            "description": "Texts that meters filter by or count distinct values of.",
        },
    },
}
EVENT: dict[str, Any] = {
    "type": "object",
    "description": "A CloudEvent 1.0. Attributes that are not named here are extensions and left alone.",
    "required": ["specversion", "id", "source", "type", "subject"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": _text(cloud_events.MAX_ID_LENGTH, "Source and id name the event for ever."),
        "source": _text(cloud_events.MAX_ID_LENGTH, "What reports it, a URI reference. Use few."),
        "type": _text(cloud_events.MAX_TYPE_LENGTH, "What happened. Use few."),
        "subject": _text(
            cloud_events.MAX_SUBJECT_LENGTH, "An account's id, an API key's id, or an account's external id."
        ),
        "time": {
            "type": ["string", "null"],
            "format": "date-time",
            "description": "When it happened, RFC 3339; now if left out. At most 5 minutes ahead, 88 days ago.",
        },
        "timedby": {
            "type": ["string", "null"],
            "description": "`client`: the time is when it was reported, and the same event may come with another.",
        },
        "datacontenttype": {"type": ["string", "null"], "enum": ["application/json", None]},
        "data": DATA,
    },
    "example": EXAMPLE,
}
BODIES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "As it is, or with `Content-Encoding: gzip`.",
        "content": {
            SINGLE: {"schema": EVENT},
            BATCH: {"schema": {"type": "array", "maxItems": MAX_EVENTS, "items": EVENT}},
        },
    }
}
