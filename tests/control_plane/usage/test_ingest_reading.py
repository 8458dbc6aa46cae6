"""What is read as an event, and what is refused with which reason."""

import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.usage.ingest import envelope
from control_plane.usage.ingest.cloud_events import read_event
from control_plane.usage.ingest.envelope import EnvelopeError, Form, Unreadable, form_of, inflate, read_body
from control_plane.usage.ingest.model import MAX_EVENT_BYTES, MAX_EVENTS, Code, ReportedEvent, Verdict, event_id_of
from gateway_contract.api_keys import generate_api_key
from gateway_contract.modes import Mode

EVENT = {
    "specversion": "1.0",
    "id": "order-1",
    "source": "/shop",
    "type": "com.example.sold",
    "subject": "acc_1",
    "time": "2026-03-17T12:00:00.5Z",
    "data": {"product": "weather", "units": {"transactions": 2}, "properties": {"country": "NO"}},
}


def event(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in (EVENT | changes).items() if value is not ...}


def read(**changes: Any) -> ReportedEvent | Verdict:
    return read_event(json.dumps(event(**changes)).encode())


class TestReading:
    def test_reads_what_is_said(self):
        found = read(data={**EVENT["data"], "mode": "test", "endpoint": "checkout"})
        assert isinstance(found, ReportedEvent)
        assert (found.id, found.source, found.type, found.subject) == ("order-1", "/shop", EVENT["type"], "acc_1")
        assert (found.at_ms, found.product, found.mode) == (1773748800500, "weather", Mode.TEST)
        assert (found.endpoint, dict(found.units)) == ("checkout", {"transactions": 2})
        assert dict(found.properties) == {"country": "NO"}

    def test_takes_an_event_without_time_and_data(self):
        found = read(time=..., data=...)
        assert isinstance(found, ReportedEvent)
        assert (found.at_ms, found.units, found.product) == (None, {}, "")

    def test_leaves_extension_attributes_alone(self):
        assert isinstance(read(traceparent="00-1", sequence="7", dataschema="https://x.test/1"), ReportedEvent)

    @pytest.mark.parametrize(
        ("changes", "code", "word"),
        [
            ({"specversion": "0.3"}, Code.MALFORMED, "specversion"),
            ({"specversion": ...}, Code.MALFORMED, "specversion"),
            ({"id": ...}, Code.MALFORMED, "id"),
            ({"id": ""}, Code.MALFORMED, "id"),
            ({"id": 7}, Code.MALFORMED, "id"),
            ({"id": "x" * 257}, Code.MALFORMED, "id"),
            ({"source": ...}, Code.MALFORMED, "source"),
            ({"type": ""}, Code.MALFORMED, "type"),
            ({"subject": ...}, Code.MALFORMED, "subject"),
            ({"subject": "a\nb"}, Code.MALFORMED, "control"),
            ({"time": "2026-03-17T12:00:00"}, Code.MALFORMED, "timezone"),
            ({"time": "yesterday"}, Code.MALFORMED, "time"),
            ({"time": 1773748800}, Code.MALFORMED, "time"),
            ({"time": "0001-01-01T00:00:00+14:00"}, Code.MALFORMED, "time"),
            ({"datacontenttype": "text/xml"}, Code.MALFORMED, "JSON"),
            ({"data": ..., "data_base64": "e30="}, Code.MALFORMED, "JSON"),
            ({"data": "text"}, Code.MALFORMED, "object"),
            ({"data": {"unit": 1}}, Code.MALFORMED, "unknown field"),
            ({"data": {"units": {"transactions": 1.0}}}, Code.MALFORMED, "float"),
            ({"data": {"units": {"transactions": True}}}, Code.MALFORMED, "bool"),
            ({"data": {"units": {"transactions": "1"}}}, Code.MALFORMED, "str"),
            ({"data": {"units": {"transactions": -1}}}, Code.MALFORMED, ">= 0"),
            ({"data": {"units": {"transactions": 10**12 + 1}}}, Code.MALFORMED, "<="),
            ({"data": {"units": {"Transactions": 1}}}, Code.MALFORMED, "units"),
            ({"data": {"units": {f"u{n}": 1 for n in range(17)}}}, Code.MALFORMED, "units"),
            ({"data": {"units": {"requests": 1}}}, Code.RESERVED_UNIT, "requests"),
            ({"data": {"units": {"bytes_out": 1}}}, Code.RESERVED_UNIT, "bytes_out"),
            ({"data": {"properties": {"a b": "c"}}}, Code.MALFORMED, "properties"),
            ({"data": {"properties": {"a": 1}}}, Code.MALFORMED, "properties"),
            ({"data": {"properties": {"a": "x" * 257}}}, Code.MALFORMED, "properties"),
            ({"data": {"properties": {f"p{n}": "" for n in range(33)}}}, Code.MALFORMED, "properties"),
            ({"data": {"mode": "production"}}, Code.MALFORMED, "mode"),
            ({"data": {"product": "No Code"}}, Code.MALFORMED, "product"),
            ({"data": {"endpoint": ""}}, Code.MALFORMED, "endpoint"),
            ({"more": "x" * MAX_EVENT_BYTES}, Code.TOO_LARGE, "bytes"),
        ],
    )
    def test_refuses_with_a_reason(self, changes: dict[str, Any], code: Code, word: str):
        found = read(**changes)
        assert isinstance(found, Verdict)
        assert found.code is code
        assert word in found.message

    @pytest.mark.parametrize("place", ["id", "source", "type", "subject", "property", "name", "endpoint"])
    def test_never_takes_an_api_key_or_a_token(self, place: str):
        for secret in (generate_api_key(Mode.LIVE), "kmt_" + "A" * 43):
            data = {
                "property": {"properties": {"note": f"by {secret}"}},
                "name": {"properties": {secret: "1"}},
                "endpoint": {"endpoint": secret},
            }
            found = read(data=data[place]) if place in data else read(**{place: secret})
            assert isinstance(found, Verdict)
            assert secret not in found.message
            if len(secret) < 49 or place != "name":
                assert found.code is Code.HOLDS_A_KEY
            sent = read_body(json.dumps(event(id=secret)).encode(), encoding="", form=Form.SINGLE)
            assert sent.ids == [None]

    @pytest.mark.parametrize(
        "raw",
        [b"", b"{", b"[]", b'{"id": "\xff"}', b'{"id": "\\ud800"}', b"null", b'{"a":' * 5000 + b"1" + b"}" * 5000],
    )
    def test_refuses_what_is_no_json_object(self, raw: bytes):
        found = read_event(raw)
        assert isinstance(found, Verdict)
        assert found.code is Code.MALFORMED

    @given(st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists, max_leaves=3).map(json.dumps))
    def test_never_raises(self, raw: bytes | str):
        found = read_event(raw.encode() if isinstance(raw, str) else raw)
        assert isinstance(found, Verdict)


class TestIdentity:
    def test_source_and_id_alone_name_an_event(self):
        one, other = read(), read(subject="acc_2", time=..., data=None)
        assert one.event_id == other.event_id
        assert one.content_hash != other.content_hash

    def test_the_parts_cannot_be_shifted(self):
        assert event_id_of("ab", "c") != event_id_of("a", "bc")
        assert event_id_of("/shop", "order-1") == "app-e822c2a8accaf06f6d956254b60f820add4915ea"

    def test_the_order_in_which_things_are_said_makes_no_difference(self):
        one = read(data={"units": {"a": 1, "b": 2}, "properties": {"x": "1", "y": "2"}})
        other = read(data={"properties": {"y": "2", "x": "1"}, "units": {"b": 2, "a": 1}})
        assert one.content_hash == other.content_hash

    @pytest.mark.parametrize(
        "changes",
        [
            {"subject": "acc_2"},
            {"type": "other"},
            {"time": ...},
            {"time": "2026-03-17T12:00:00.501Z"},
            {"data": {**EVENT["data"], "product": "maps"}},
            {"data": {**EVENT["data"], "units": {"transactions": 3}}},
            {"data": {**EVENT["data"], "properties": {}}},
            {"data": {**EVENT["data"], "mode": "test"}},
            {"data": {**EVENT["data"], "endpoint": "x"}},
        ],
    )
    def test_everything_else_is_content(self, changes: dict[str, Any]):
        assert read().content_hash != read(**changes).content_hash


class TestForms:
    @pytest.mark.parametrize(
        ("content_type", "attributes", "form"),
        [
            ("application/cloudevents+json", False, Form.SINGLE),
            ("Application/CloudEvents+JSON; charset=UTF-8", False, Form.SINGLE),
            ("application/cloudevents-batch+json", False, Form.BATCH),
            ("application/json", True, Form.BINARY),
            ("application/vnd.shop+json; charset=utf-8", True, Form.BINARY),
            ("", True, Form.BINARY),
        ],
    )
    def test_are_told_by_the_media_type(self, content_type: str, attributes, form: Form):
        assert form_of(content_type, has_attributes=attributes) is form

    @pytest.mark.parametrize(
        ("content_type", "attributes"),
        [
            ("application/json", False),
            ("", False),
            ("text/plain", True),
            ("application/cloudevents+xml", False),
            ("application/cloudevents+json; charset=utf-16", False),
        ],
    )
    def test_others_are_refused(self, content_type: str, attributes):
        with pytest.raises(EnvelopeError) as refused:
            form_of(content_type, has_attributes=attributes)
        assert refused.value.kind is Unreadable.TYPE

    def test_each_event_of_a_batch_is_judged_by_itself(self):
        body = json.dumps([event(id="a"), {"id": "b"}, 7, event(id="c", specversion="2")]).encode()
        sent = read_body(body, encoding="", form=Form.BATCH)
        assert sent.ids == ["a", "b", None, "c"]
        assert [isinstance(found, ReportedEvent) for found in sent.events] == [True, False, False, False]

    def test_an_empty_batch_is_a_batch(self):
        assert read_body(b"[]", encoding="", form=Form.BATCH).events == []

    @pytest.mark.parametrize("body", [b"", b"{}", b"[", b"[1,]", b"[" * 100_000, b"\xff", b'[{"a": tru}]'])
    def test_what_is_no_array_is_refused_whole(self, body: bytes):
        with pytest.raises(EnvelopeError) as refused:
            read_body(body, encoding="identity", form=Form.BATCH)
        assert refused.value.kind is Unreadable.BROKEN

    def test_too_many_events_are_refused_whole(self):
        body = json.dumps([event()] * (MAX_EVENTS + 1)).encode()
        with pytest.raises(EnvelopeError) as refused:
            read_body(body, encoding="", form=Form.BATCH)
        assert refused.value.kind is Unreadable.TOO_LARGE

    def test_binary_mode_takes_attributes_from_headers(self):
        headers = [
            ("content-type", "application/json"),
            ("ce-specversion", "1.0"),
            ("ce-id", "caf%C3%A9"),
            ("ce-source", "/shop"),
            ("ce-type", "sold"),
            ("ce-subject", "acc_1"),
            ("ce-time", "2026-03-17T12:00:00Z"),
            ("ce-data", "no attribute"),
        ]
        sent = read_body(b'{"units": {"transactions": 1}}', encoding="", form=Form.BINARY, headers=headers)
        (found,) = sent.events
        assert isinstance(found, ReportedEvent)
        assert (sent.ids, found.id, found.at_ms) == (["café"], "café", 1773748800000)
        assert dict(found.units) == {"transactions": 1}
        assert isinstance(read_body(b"", encoding="", form=Form.BINARY, headers=headers).events[0], ReportedEvent)
        for broken in (b"{", b'{"x": 1}'):
            assert isinstance(read_body(broken, encoding="", form=Form.BINARY, headers=headers).events[0], Verdict)

    @pytest.mark.parametrize("extra", [("ce-id", "again"), ("ce-source", "%ff")])
    def test_binary_mode_refuses_headers_that_say_nothing_certain(self, extra: tuple[str, str]):
        headers = [("ce-specversion", "1.0"), ("ce-id", "a"), extra]
        with pytest.raises(EnvelopeError):
            read_body(b"", encoding="", form=Form.BINARY, headers=headers)


class TestGzip:
    def test_bodies_are_inflated_in_several_members_too(self):
        assert inflate(gzip.compress(b"one ") + gzip.compress(b"two"), limit=7) == b"one two"
        sent = read_body(gzip.compress(json.dumps([event()]).encode()), encoding="GZIP", form=Form.BATCH)
        assert isinstance(sent.events[0], ReportedEvent)

    @pytest.mark.parametrize(
        "body",
        [
            b"no gzip",
            gzip.compress(b"cut off" * 100)[:-1],
            gzip.compress(b"cut off" * 100)[:20],
            gzip.compress(b"and more") + b"junk",
            zlib.compress(b"another form"),
        ],
    )
    def test_broken_bodies_are_refused(self, body: bytes):
        with pytest.raises(EnvelopeError) as refused:
            inflate(body, limit=10_000)
        assert refused.value.kind is Unreadable.BROKEN

    def test_a_bomb_is_refused_while_it_is_inflated(self, monkeypatch: pytest.MonkeyPatch):
        inflated = 0
        real = zlib.decompressobj

        class Counting:
            def __init__(self, wbits: int) -> None:
                self._reader = real(wbits)

            def decompress(self, data: bytes, length: int) -> bytes:
                nonlocal inflated
                part = self._reader.decompress(data, length)
                inflated += len(part)
                return part

            def __getattr__(self, name: str) -> Any:
                return getattr(self._reader, name)

        monkeypatch.setattr(envelope.zlib, "decompressobj", Counting)
        bomb = gzip.compress(bytes(64 * 1024 * 1024))
        with pytest.raises(EnvelopeError) as refused:
            inflate(bomb, limit=1_000_000)
        assert refused.value.kind is Unreadable.TOO_LARGE
        assert inflated < 1_000_000 + 128 * 1024

    def test_another_encoding_is_refused(self):
        for encoding in ("br", "deflate", "gzip,gzip"):
            with pytest.raises(EnvelopeError) as refused:
                read_body(b"[]", encoding=encoding, form=Form.BATCH)
            assert refused.value.kind is Unreadable.ENCODING
