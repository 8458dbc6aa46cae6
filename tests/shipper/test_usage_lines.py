import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_contract.api_keys import generate_api_key
from gateway_contract.modes import Mode
from kong_plugins.parts.line_values import TOO_LONG_UNIT, UnreadableLineError
from kong_plugins.parts.usage_lines import (
    build_usage_line,
    encode_usage_line,
    read_usage_line,
)
from tests.shipper.support import DATA, TEMPLATE

FILE_LOG = (DATA / "file-log-lines.jsonl").read_bytes().splitlines()
SERIALIZED = (DATA / "serialized.jsonl").read_bytes().splitlines()
GOLDEN = [json.loads(line) for line in (DATA / "usage-lines.jsonl").read_bytes().splitlines()]
UNITS = {"length": "Content-Length"}
KEY = generate_api_key(Mode.LIVE)


def file_log(**changes: Any) -> dict[str, Any]:
    return json.loads(TEMPLATE) | changes


def serialized(*, request: dict[str, Any] | None = None, response: dict[str, Any] | None = None) -> dict[str, Any]:
    log = json.loads(SERIALIZED[0])
    log["request"]["headers"] |= request or {}
    log["response"]["headers"] |= response or {}
    return log


def both_ways(
    log: dict[str, Any], unit_headers: dict[str, str] | None = None, replay_headers: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The line of a log, which must be the same from the mapping and from its bytes."""
    built = build_usage_line(log, unit_headers=unit_headers or {}, replay_headers=replay_headers)
    read = read_usage_line(
        json.dumps(log).encode(), unit_headers=unit_headers or {}, replay_headers=replay_headers
    )
    assert json.loads(encode_usage_line(read)) == built
    return built


class TestRecordedLines:
    @pytest.mark.parametrize(("raw", "expected"), list(zip(FILE_LOG + SERIALIZED, GOLDEN, strict=True)))
    def test_give_exactly_the_golden_line(self, raw: bytes, expected: dict[str, Any]) -> None:
        assert both_ways(json.loads(raw), UNITS) == expected

    @pytest.mark.parametrize("expected", GOLDEN)
    def test_a_line_already_built_passes_unchanged(self, expected: dict[str, Any]) -> None:
        shuffled = json.dumps(dict(reversed(expected.items())), separators=(",", ":")).encode()

        assert json.loads(encode_usage_line(read_usage_line(encode_usage_line(expected)))) == expected
        assert json.loads(encode_usage_line(read_usage_line(shuffled))) == expected

    @pytest.mark.parametrize("expected", GOLDEN)
    def test_a_line_from_before_there_was_a_replay_header_is_still_read(self, expected: dict[str, Any]) -> None:
        old = {name: value for name, value in expected.items() if name != "rp"}

        assert json.loads(encode_usage_line(read_usage_line(encode_usage_line(old)))) == expected


class TestWhitelist:
    @given(
        where=st.sampled_from([(), ("request",), ("response",), ("request", "headers"), ("response", "headers")]),
        name=st.text(min_size=1, max_size=20).filter(lambda name: name.lower() != "uri"),
        form=st.sampled_from([FILE_LOG[0], SERIALIZED[0]]),
    )
    def test_nothing_unnamed_comes_through(self, where: tuple[str, ...], name: str, form: bytes) -> None:
        log = json.loads(form)
        place = log
        for step in where:
            place = place.setdefault(step, {})
        if name in place:
            return
        place[name] = KEY

        try:
            line = json.dumps(both_ways(log))
        except UnreadableLineError:
            return
        assert KEY not in line

    @given(
        prefix=st.text(alphabet="/abc%20?&=", max_size=1100),
        encoded=st.sampled_from([KEY, KEY.replace("_", "%5F"), KEY.replace("_", "%5f")]),
        suffix=st.text(alphabet="/abc", max_size=40),
    )
    def test_no_key_in_a_path_and_no_query(self, prefix: str, encoded: str, suffix: str) -> None:
        path = both_ways(file_log(path="/" + prefix + encoded + suffix))["p"]

        assert KEY[8:30] not in path
        assert "?" not in path
        assert len(path) <= 1024

    def test_a_key_as_receipt_or_unit_does_not_come_through(self) -> None:
        line = both_ways(file_log(km_receipt=KEY, km_receipt_out=f"1.{KEY}.1", km_unit_tokens=f"{KEY}"))

        assert KEY not in json.dumps(line)
        assert (line["ru"], line["ra"]) == ("", "")

    def test_the_path_is_cut_at_1024_characters_after_redaction(self) -> None:
        line = both_ways(file_log(path="/" + "a" * 1000 + KEY))

        assert KEY[8:20] not in line["p"]
        assert line["p"].endswith("km_live_[redacted]"[:23])


class TestReceipts:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("1.a.1", "1.a.1"),
            (["1.a.1", "1.a.1"], "1.a.1"),
            (["1.a.1", "1.b.1"], ""),
            ([], ""),
            ("x" * 513, ""),
            ("a, b", ""),
            ("<script>", ""),
            ("-.no_key", "-.no_key"),
        ],
    )
    def test_are_taken_as_found_unless_no_receipt_can_look_so(self, value: Any, expected: str) -> None:
        log = serialized(request={"x-km-receipt": value}, response={"x-km-receipt": value})

        line = both_ways(log)

        assert (line["ru"], line["ra"]) == (expected, expected)

    def test_a_second_one_from_the_upstream_leaves_the_requests(self) -> None:
        log = serialized(request={"x-km-receipt": "1.a.1"}, response={"x-km-receipt": ["1.a.1", "1.z.9"]})

        assert both_ways(log)["ru"] == "1.a.1"
        assert both_ways(log)["ra"] == ""


class TestUnits:
    def test_come_as_raw_text_from_either_form(self) -> None:
        assert both_ways(file_log(km_unit_tokens="12", km_unit_bytes="x"))["u"] == {"tokens": "12", "bytes": "x"}
        log = serialized(response={"x-tokens": "12"})
        assert both_ways(log, {"tokens": "X-Tokens", "absent": "x-absent"})["u"] == {"tokens": "12"}

    def test_a_repeated_header_is_no_number(self) -> None:
        assert both_ways(serialized(response={"x-tokens": ["5", "7"]}), {"tokens": "x-tokens"})["u"] == {
            "tokens": "5, 7"
        }

    def test_a_long_text_is_not_cut_to_a_number(self) -> None:
        assert both_ways(file_log(km_unit_tokens="1" * 65))["u"] == {"tokens": TOO_LONG_UNIT}


class TestReplayHeader:
    NAMES = ("idempotent-replayed", "x-from-cache")

    @pytest.mark.parametrize("text", ["true", "True", "false", "", "yes"])
    def test_comes_as_raw_text_from_either_form(self, text: str) -> None:
        assert both_ways(file_log(km_replayed=text))["rp"] == text
        assert (
            both_ways(serialized(response={"idempotent-replayed": text}), replay_headers=self.NAMES)["rp"] == text
        )

    def test_the_first_header_that_is_there_counts_and_of_a_repeated_one_the_first_value(self) -> None:
        later = serialized(response={"x-from-cache": ["true", "false"]})
        both = serialized(response={"x-from-cache": "true", "idempotent-replayed": "false"})

        assert both_ways(later, replay_headers=self.NAMES)["rp"] == "true"
        assert both_ways(both, replay_headers=self.NAMES)["rp"] == "false"

    def test_is_empty_where_there_is_none_or_nobody_asked(self) -> None:
        assert both_ways(serialized(), replay_headers=self.NAMES)["rp"] == ""
        assert both_ways(file_log(km_replayed=None))["rp"] == ""
        assert both_ways(serialized(response={"idempotent-replayed": "true"}))["rp"] == ""

    def test_holds_no_key_and_is_not_cut_to_something_else(self) -> None:
        assert KEY not in json.dumps(both_ways(file_log(km_replayed=KEY)))
        assert both_ways(file_log(km_replayed="true" * 17))["rp"] == TOO_LONG_UNIT
        built = both_ways(file_log()) | {"rp": KEY}
        assert KEY.encode() not in encode_usage_line(read_usage_line(encode_usage_line(built)))


class TestUnreadable:
    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"path": 7}, "path"),
            ({"path": None}, "path"),
            ({"started_at": "now"}, "started_at"),
            ({"started_at": -1}, "started_at"),
            ({"request": {"method": "GET", "size": 1}}, "request.id"),
            ({"request": {"method": "GET", "size": 1, "id": "abc"}}, "request.id"),
            ({"request": {"method": "GET", "size": True, "id": "0" * 32}}, "request.size"),
            ({"response": {"status": "200", "size": 1}}, "response.status"),
            ({"latencies": None}, "latencies"),
            ({"km_receipt": 5}, "km_receipt"),
            ({"km_unit_tokens": 5}, "km_unit"),
            ({"km_unit_Tokens": "5"}, "km_unit"),
        ],
    )
    def test_names_the_field_and_never_its_value(self, changes: dict[str, Any], field: str) -> None:
        log = file_log(**changes)
        with pytest.raises(UnreadableLineError) as by_mapping:
            build_usage_line(log, unit_headers={})
        with pytest.raises(UnreadableLineError) as by_bytes:
            read_usage_line(json.dumps(log).encode())

        assert by_mapping.value.field == by_bytes.value.field == field

    @pytest.mark.parametrize(
        "raw",
        [b"", b"{", b"[]", b"null", b"7", b"\xff", TEMPLATE[:-1], TEMPLATE + b"x", b"[" * 99999, b'{"a":' * 99999],
    )
    def test_what_is_no_json_object(self, raw: bytes) -> None:
        with pytest.raises(UnreadableLineError):
            read_usage_line(raw)

    @given(st.binary(max_size=200))
    def test_no_bytes_raise_anything_else(self, raw: bytes) -> None:
        with pytest.raises(UnreadableLineError):
            read_usage_line(raw)

    def test_a_built_line_with_a_field_too_many_is_refused(self) -> None:
        with pytest.raises(UnreadableLineError):
            read_usage_line(json.dumps(GOLDEN[0] | {"authorization": "x"}).encode())
        with pytest.raises(UnreadableLineError):
            read_usage_line(json.dumps(GOLDEN[0] | {"v": 2}).encode())


class TestStrangeButBillable:
    @pytest.mark.parametrize("octets", [b"\xff\xfe", b"\xc3", b"\\ud800", b"\\u0000", b"\xe2\x80\xa8"])
    def test_bytes_a_caller_puts_into_the_path_never_lose_the_call(self, octets: bytes) -> None:
        line = read_usage_line(TEMPLATE.replace(b"/fl/v1/x", b"/fl/" + octets))

        assert line.p.startswith("/fl/")
        assert b"\n" not in encode_usage_line(line)

    @pytest.mark.parametrize("uri", ["/a\udcff", "/%ff\udcff?x", "/\ud800%41"])
    def test_text_without_a_utf8_form_is_replaced(self, uri: str) -> None:
        log = serialized()
        log["request"]["uri"] = uri

        line = build_usage_line(log, unit_headers={})

        assert line["p"].startswith("/")
        assert json.loads(encode_usage_line(line)) == line

    def test_a_route_without_service_or_name(self) -> None:
        line = both_ways(file_log(service=None, route={"id": "x"}))

        assert (line["sv"], line["rt"]) == ("", "")

    def test_fractions_of_milliseconds_are_rounded(self) -> None:
        line = both_ways(file_log(latencies={"request": 2.6, "kong": 1.0, "proxy": -1, "receive": 0}))

        assert (line["lt"], line["lk"], line["lp"]) == (3, 1, -1)
