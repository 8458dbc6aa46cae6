"""Bodies and signatures as they come from anybody."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import stripe as sdk

from control_plane.stripe_sync.events.allowlist import SNAPSHOT_TYPES, THIN_TYPES, Kind, kind_of, kind_of_object
from control_plane.stripe_sync.events.model import (
    MAX_ATTEMPTS,
    Form,
    Told,
    WrongEventError,
    parse_event,
    pause_after,
)
from control_plane.stripe_sync.events.registry import APPLIERS
from control_plane.stripe_sync.events.signatures import WrongSignatureError, split_secrets, verify

NOW = datetime(2026, 3, 17, 10, 37, 12, 345_000, tzinfo=UTC)
STAMP = int(NOW.timestamp())
SECRET = "whsec_" + "s" * 24


def a_snapshot(**fields: Any) -> dict[str, Any]:
    data = {"object": {"id": "in_1", "object": "invoice"}}
    return {"id": "evt_1", "object": "event", "type": "invoice.paid", "created": STAMP, "data": data, **fields}


def a_thin(**fields: Any) -> dict[str, Any]:
    return {
        "id": "evt_1",
        "object": "v2.core.event",
        "type": "v1.billing.meter.no_meter_found",
        "created": "2026-03-17T10:37:12.000Z",
        **fields,
    }


def parsed(event: object, form: Form = Form.SNAPSHOT) -> Told:
    return parse_event(json.dumps(event).encode(), form)


class TestParsing:
    def test_takes_of_a_snapshot_only_which_object_it_is_about(self) -> None:
        moment = datetime.fromtimestamp(STAMP, UTC)
        assert parsed(a_snapshot()) == Told("evt_1", "invoice.paid", moment, Kind.INVOICE, "in_1")

    @pytest.mark.parametrize(
        ("event", "kind", "object_id"),
        [
            (a_thin(), Kind.METER_ERRORS, "evt_1"),
            (a_thin(type="v1.invoice.paid", related_object={"id": "in_1"}), Kind.INVOICE, "in_1"),
            (a_thin(type="v1.something.else"), None, None),
        ],
    )
    def test_reads_thin_events(self, event: dict[str, Any], kind: Kind | None, object_id: str | None) -> None:
        told = parsed(event, Form.THIN)
        assert (told.kind, told.object_id, told.created_at) == (kind, object_id, NOW.replace(microsecond=0))

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"nonsense",
            b"[]",
            b"null",
            b"[" * 100_000,
            b"\xff",
            b'{"object": "event"}',
            b'{"object": "event", "id": ' + b"9" * 6_000 + b"}",
        ],
        ids=range(8),
    )
    def test_refuses_bodies_that_are_no_event(self, body: bytes) -> None:
        with pytest.raises(WrongEventError):
            parse_event(body, Form.SNAPSHOT)

    @pytest.mark.parametrize(
        "fields",
        [
            {"id": ""},
            {"id": "e\x00vt"},
            {"id": "\ud800"},
            {"id": "e" * 300},
            {"id": 7},
            {"type": None},
            {"created": "yesterday"},
            {"created": 10**30},
            {"created": True},
            {"created": None},
            {"data": {"object": []}},
            {"data": {"object": {"id": None}}},
            {"data": None},
            {"object": "v2.core.event"},
            {"object": "list"},
        ],
        ids=str,
    )
    def test_refuses_events_with_wrong_fields(self, fields: dict[str, Any]) -> None:
        with pytest.raises(WrongEventError):
            parsed(a_snapshot(**fields))

    def test_refuses_thin_events_that_name_no_object(self) -> None:
        for related in (None, {}, {"id": ""}, "in_1"):
            with pytest.raises(WrongEventError):
                parsed(a_thin(type="v1.invoice.paid", related_object=related), Form.THIN)

    def test_refuses_a_snapshot_where_thin_events_are_taken(self) -> None:
        with pytest.raises(WrongEventError, match="thin"):
            parsed(a_snapshot(), Form.THIN)


class TestSignatures:
    def test_of_any_secret_will_do(self) -> None:
        header = sdk.WebhookSignature.generate_signature_header("{}", SECRET, STAMP)
        verify(b"{}", header, ("whsec_other", SECRET), now=NOW)
        with pytest.raises(WrongSignatureError):
            verify(b"{}", header, ("whsec_other",), now=NOW)
        with pytest.raises(WrongSignatureError):
            verify(b"{}", header, (), now=NOW)

    @pytest.mark.parametrize("secret", ["", " "])
    def test_of_an_empty_secret_is_none(self, secret: str) -> None:
        header = sdk.WebhookSignature.generate_signature_header("{}", secret, STAMP)
        with pytest.raises(WrongSignatureError):
            verify(b"{}", header, (secret,), now=NOW)

    @pytest.mark.parametrize(
        ("seconds", "taken"), [(0, True), (299, True), (-299, True), (302, False), (-302, False)]
    )
    def test_counts_for_five_minutes(self, seconds: int, *, taken: bool) -> None:
        header = sdk.WebhookSignature.generate_signature_header("{}", SECRET, STAMP)
        at = NOW + timedelta(seconds=seconds)
        if taken:
            verify(b"{}", header, (SECRET,), now=at)
        else:
            with pytest.raises(WrongSignatureError, match="five minutes"):
                verify(b"{}", header, (SECRET,), now=at)

    @pytest.mark.parametrize(
        "header",
        [
            "",
            "t=1",
            "v1=abc",
            "t=,v1=",
            "rubbish",
            "t=x,v1=y",
            "t=1,v1=\u00e9",
            "t=" + "9" * 6000,
            "=,=",
            "t=1,v0=a",
        ],
        ids=range(10),
    )
    def test_that_make_no_sense_are_refused(self, header: str) -> None:
        with pytest.raises(WrongSignatureError):
            verify(b"{}", header, (SECRET,), now=NOW)

    def test_secrets_are_split_at_commas(self) -> None:
        assert split_secrets("") == ()
        assert split_secrets(" , ") == ()
        assert split_secrets("a, b,") == ("a", "b")


class TestTypes:
    def test_of_every_kind_are_applied_by_somebody(self) -> None:
        assert set(APPLIERS) == set(Kind)

    def test_have_a_kind_each_in_either_form(self) -> None:
        for name in SNAPSHOT_TYPES:
            assert kind_of(name) is not None
            assert kind_of(f"v1.{name}") is kind_of(name)
        assert {kind_of(name) for name in THIN_TYPES} == {Kind.METER_ERRORS}
        assert kind_of("charge.succeeded") is None

    @pytest.mark.parametrize(
        ("object_id", "kind"),
        [
            ("sub_1", Kind.SUBSCRIPTION),
            ("sub_sched_1", Kind.SCHEDULE),
            ("in_1", Kind.INVOICE),
            ("cs_test_1", Kind.CHECKOUT),
            ("evt_1", Kind.EVENT),
            ("price_1", None),
            ("", None),
        ],
    )
    def test_of_objects_are_told_by_their_ids(self, object_id: str, kind: Kind | None) -> None:
        assert kind_of_object(object_id) is kind


class TestPauses:
    def test_grow_to_hours(self) -> None:
        pauses = [pause_after(attempt) for attempt in range(1, MAX_ATTEMPTS + 3)]
        assert pauses == sorted(pauses)
        assert (pauses[0], pauses[-1]) == (timedelta(seconds=1), timedelta(hours=8))
        assert timedelta(hours=12) < sum(pauses[: MAX_ATTEMPTS - 1], timedelta()) < timedelta(days=1)
