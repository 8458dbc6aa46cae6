"""Whose call it was: the plain rule, and that the fast form for batches gives the same answer."""

from dataclasses import asdict

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.catalog.model import ProductUsageRules
from control_plane.usage.collect.attribution import ImplausibleTimeError, attribute_line
from control_plane.usage.collect.batch_attribution import Attribution
from control_plane.usage.collect.columns import COLUMN_NAMES, OPTIONAL_COLUMNS
from control_plane.usage.collect.endpoints import EndpointNames, Template
from control_plane.usage.collect.lines import UsageLine, decode_lines
from control_plane.usage.collect.product_rules import ProductRules
from control_plane.usage.model import MAX_UNITS
from gateway_contract.modes import Mode
from gateway_contract.outcomes import UNIDENTIFIED, Outcome
from gateway_contract.receipts import Place, Receipt, _mac, refusal_note, sign_receipt

OLD = b"the secret before the last rotation...."
NEW = b"the secret that signs receipts by now, longer than a block of sha-256 to be sure"
SECRETS = (NEW, OLD)
AT = 1_773_748_800_000
TEMPLATES = {"weather": (Template("GET", "/weather/v1/current/{city}"),)}
RULES = ProductRules(
    {
        "weather": ProductUsageRules(
            unit_maximums={"weather-v1": {"tokens": 200}, "*": {"tokens": 10, "ms": 20}},
            replay_header="idempotent-replayed",
        ),
        "silent": ProductUsageRules(unit_maximums={}, replay_header=""),
    }
)
# by enrichment, and of reported events
ADDED_LATER = OPTIONAL_COLUMNS - {"shipper"}


def names() -> EndpointNames:
    return EndpointNames(TEMPLATES)


def receipt(**changes) -> Receipt:
    fields = {
        "emitter": "abc",
        "sequence": 7,
        "call_number": 3,
        "decided_at_ms": AT,
        "account_id": "acc_1",
        "key_id": "key_1",
        "product": "weather",
        "mode": Mode.LIVE,
        "outcome": Outcome.SERVED,
        "units": 2,
    }
    return Receipt(**(fields | changes))


def line(**changes) -> UsageLine:
    fields = {
        "v": 1,
        "id": "0" * 32,
        "at": AT + 5,
        "m": "GET",
        "p": "/weather/v1/current/oslo",
        "rt": "weather-v1",
    }
    return msgspec.convert(fields | changes, UsageLine)


def signed(found: Receipt | None = None, place: Place = Place.UPSTREAM, secret: bytes = NEW) -> str:
    return sign_receipt(found or receipt(), place=place, secret=secret)


def served(**fields) -> UsageLine:
    return line(ru=signed(), ra=signed(place=Place.ANSWER), **fields)


def attributed(found: UsageLine):
    return attribute_line(found, secrets=SECRETS, endpoints=names(), rules=RULES, shipper="node_a")


class TestAttribution:
    def test_everything_that_decides_comes_from_the_receipt(self):
        event = attributed(line(ru=signed(), ra=signed(place=Place.ANSWER), id="f" * 32, at=1))
        assert (event.event_id, event.occurred_at_ms, event.account_id, event.key_id) == (
            "abc-7",
            AT,
            "acc_1",
            "key_1",
        )
        assert (event.product, event.mode, event.outcome, event.units) == ("weather", Mode.LIVE, Outcome.SERVED, 2)
        assert (event.emitter, event.call_number, event.flags) == ("abc", 3, ())
        assert event.request_id == "f" * 32

    def test_a_leaked_receipt_sent_again_attributes_nothing(self):
        """An upstream that shows its request headers to callers hands them receipts; refusals leave them be."""
        refused = receipt(account_id="acc_2", outcome=Outcome.RATE_LIMITED)
        event = attributed(line(ru=signed(), ra=signed(refused, Place.ANSWER), so="kong", st=429))
        assert (event.account_id, event.outcome, event.flags) == ("acc_2", Outcome.RATE_LIMITED, ("bad_receipt",))
        event = attributed(line(ru=signed(), ra=refusal_note(Outcome.UNKNOWN_KEY), so="kong", st=401))
        assert (event.account_id, event.outcome, event.flags) == ("", Outcome.UNKNOWN_KEY, ("bad_receipt",))

    def test_a_receipt_that_the_answer_does_not_confirm_is_taken_and_flagged(self):
        event = attributed(line(ru=signed()))
        assert (event.account_id, event.flags) == ("acc_1", ("lone_receipt",))
        event = attributed(line(ru=signed(), ra="the upstream's own"))
        assert (event.account_id, event.flags) == ("acc_1", ("bad_receipt", "lone_receipt"))

    def test_the_answer_receipt_serves_where_there_is_no_other(self):
        refused = receipt(outcome=Outcome.RATE_LIMITED)
        event = attributed(line(ra=signed(refused, Place.ANSWER), st=429))
        assert (event.account_id, event.outcome, event.flags) == ("acc_1", Outcome.RATE_LIMITED, ())

    def test_a_receipt_in_the_wrong_place_is_none(self):
        assert attributed(line(ru=signed(place=Place.ANSWER))).flags == ("bad_receipt",)
        assert attributed(line(ra=signed(place=Place.UPSTREAM))).account_id == ""

    def test_a_forged_request_receipt_does_not_hide_the_answer_receipt(self):
        event = attributed(line(ru="1.forged", ra=signed(place=Place.ANSWER)))
        assert (event.account_id, event.flags) == ("acc_1", ("bad_receipt",))

    def test_receipts_under_an_older_secret_hold(self):
        assert attributed(line(ru=signed(secret=OLD))).account_id == "acc_1"

    def test_without_a_receipt_the_request_id_names_the_event(self):
        event = attributed(line())
        assert (event.event_id, event.occurred_at_ms, event.account_id) == ("0" * 32, AT + 5, "")
        assert (event.outcome, event.units, event.flags) == (Outcome.UNATTRIBUTED, 0, ())

    @pytest.mark.parametrize("outcome", sorted(UNIDENTIFIED))
    def test_a_refusal_note_gives_the_outcome(self, outcome):
        event = attributed(line(ra=refusal_note(outcome)))
        assert (event.outcome, event.account_id, event.flags) == (outcome, "", ())

    def test_a_refusal_note_that_gives_itself_airs_is_flagged(self):
        event = attributed(line(ra="-.served"))
        assert (event.outcome, event.flags) == (Outcome.UNATTRIBUTED, ("bad_receipt",))

    @pytest.mark.parametrize(
        "odd",
        [
            {"units": -1},
            {"units": MAX_UNITS + 1},
            {"sequence": -1},
            {"call_number": 2**63},
            {"decided_at_ms": 0},
            {"decided_at_ms": 10**15},
            {"account_id": ""},
        ],
    )
    def test_a_signed_receipt_with_numbers_no_gateway_writes_is_flagged(self, odd):
        assert attributed(line(ru=signed(receipt(**odd)))).flags == ("bad_receipt",)

    @pytest.mark.parametrize(
        "text", ["4.x.x.x.a.k.w.live.served.1", "1.e.x.1.1.a.k.w.live.served.1", "1.e.1.1.1.a.k.w.fun.served.1"]
    )
    def test_signed_nonsense_is_flagged_never_an_exception(self, text):
        assert attributed(line(ru=f"{text}.{_mac(text, Place.UPSTREAM, NEW)}")).flags == ("bad_receipt",)

    def test_a_caller_who_hung_up_keeps_status_499(self):
        assert attributed(served(st=499)).status == 499

    def test_a_line_without_receipt_and_without_a_possible_time_has_no_event(self):
        with pytest.raises(ImplausibleTimeError):
            attributed(line(at=17))


class TestUnits:
    def test_are_taken_as_whole_numbers(self):
        assert attributed(served(u={"tokens": "123", "ms": " 7 "})).dimensions == {
            "ms": 7,
            "tokens": 123,
        }

    @pytest.mark.parametrize(
        "bad", ["-1", "1.5", "", "x", "1e3", "١٢", str(MAX_UNITS + 1), "9" * 400, -1, 1.5, None, True, ["1"]]
    )
    def test_that_are_no_such_number_are_nothing_and_flagged(self, bad):
        event = attributed(served(u={"tokens": bad}))
        assert (event.dimensions, event.flags) == ({"tokens": 0}, ("bad_units:tokens",))

    def test_of_a_name_no_dimension_has_are_left_out_and_flagged(self):
        event = attributed(served(u={"Bad Name": "1"}))
        assert (event.dimensions, event.flags) == ({}, ("bad_units",))


class TestNumbers:
    def test_beyond_what_the_store_holds_are_bounded_and_flagged(self):
        event = attributed(served(bo=-5, lt=10**30))
        assert (event.bytes_out, event.latency_ms, event.flags) == (0, 2**31 - 1, ("bad_number",))


ids = st.text("abcdef0123456789", min_size=1, max_size=8)
numbers = st.integers(-3, 2**65) | st.integers(0, 1000)
receipts = st.builds(
    receipt,
    sequence=st.integers(-1, 2**64),
    call_number=st.integers(-1, 2**64),
    decided_at_ms=st.sampled_from([AT, AT + 1, 0, 2 * 10**12, 10**14]),
    account_id=st.sampled_from(["acc_1", "acc_2", ""]),
    mode=st.sampled_from(Mode),
    outcome=st.sampled_from(Outcome),
    units=st.integers(-1, MAX_UNITS + 1),
    product=st.sampled_from(["weather", "other", ""]),
)


@st.composite
def receipt_texts(draw) -> str:
    kind = draw(st.sampled_from(["none", "signed", "note", "noise", "cut", "relabelled"]))
    if kind == "none":
        return ""
    if kind == "note":
        return draw(st.sampled_from([*(refusal_note(outcome) for outcome in UNIDENTIFIED), "-.served", "-."]))
    if kind == "noise":
        return draw(st.text(max_size=40) | st.text("1.-ab", max_size=40) | st.just("1." * 300))
    text = sign_receipt(
        draw(receipts), place=draw(st.sampled_from(Place)), secret=draw(st.sampled_from([NEW, OLD, b"x" * 40]))
    )
    if kind == "cut":
        return text[: draw(st.integers(0, len(text)))]
    if kind == "relabelled":
        body = draw(
            st.sampled_from(
                ["1.e.1_0.1.1773748800000.a.k.w.live.served.1", "2" + text.rpartition(".")[0][1:], text]
            )
        )
        return f"{body}.{_mac(body, draw(st.sampled_from(Place)), NEW)}"
    return text


lines = st.builds(
    line,
    id=ids,
    at=st.sampled_from([AT, AT + 3_600_000, 0, -1, 10**14]),
    ru=receipt_texts(),
    ra=receipt_texts(),
    m=st.sampled_from(["GET", "POST", "M" * 30]),
    p=st.sampled_from(["/weather/v1/current/oslo", "/x", "", "/" + "p" * 2000]),
    rt=st.sampled_from(["weather-v1", "", "r\0t"]),
    st=numbers,
    bi=numbers,
    bo=numbers,
    lt=numbers,
    lk=numbers,
    lp=numbers,
    u=st.dictionaries(
        st.sampled_from(["tokens", "ms", "Bad", *(f"d{number}" for number in range(20))]),
        st.sampled_from(["1", "22", "201", "-1", "x", "9" * 13, 5, None]),
        max_size=20,
    ),
    rp=st.sampled_from(["", "", "true", "TRUE", "false", "1"]),
)


class TestReplays:
    @pytest.mark.parametrize("said", ["true", "True", "TRUE"])
    def test_what_the_upstream_says_it_repeated_is_flagged(self, said):
        assert attributed(served(rp=said)).flags == ("replayed",)

    @pytest.mark.parametrize("said", ["", "false", "1", "yes", "true, true", " true", "(too long)"])
    def test_anything_but_true_is_no_replay(self, said):
        assert attributed(served(rp=said)).flags == ()

    def test_of_a_product_that_never_replays_are_none(self):
        silent = receipt(product="silent")
        found = line(ru=signed(silent), ra=signed(silent, Place.ANSWER), rp="true")
        assert attributed(found).flags == ()


class TestMaximums:
    @pytest.mark.parametrize(
        ("route", "dimension", "given", "kept"),
        [
            ("weather-v1", "tokens", "200", 200),
            ("weather-v1", "tokens", "201", None),
            ("other-route", "tokens", "10", 10),
            ("other-route", "tokens", "11", None),
            # what a route does not say itself is as for every route
            ("weather-v1", "ms", "20", 20),
            ("weather-v1", "ms", "21", None),
            ("weather-v1", "free", str(10**12), 10**12),
            ("weather-v1", "free", str(10**12 + 1), None),
        ],
    )
    def test_a_number_above_the_routes_maximum_is_0_and_flagged(self, route, dimension, given, kept):
        event = attributed(served(rt=route, u={dimension: given}))
        assert event.dimensions == {dimension: kept or 0}
        assert event.flags == (() if kept is not None else (f"bad_units:{dimension}",))

    def test_a_header_that_is_missing_is_no_units_and_no_flag(self):
        event = attributed(served(rt="weather-v1"))
        assert (event.dimensions, event.flags) == ({}, ())

    def test_of_one_product_do_not_bind_another(self):
        other = receipt(product="maps")
        event = attributed(
            line(ru=signed(other), ra=signed(other, Place.ANSWER), rt="weather-v1", u={"tokens": "201"})
        )
        assert (event.dimensions, event.flags) == ({"tokens": 201}, ())


class TestFastForm:
    @settings(max_examples=300, deadline=None)
    @given(st.lists(lines, max_size=8))
    def test_agrees_with_the_plain_rule(self, given_lines):
        fast = Attribution(secrets=SECRETS, endpoints=names(), rules=RULES)
        found = fast.events(given_lines, ingested_at_ms=AT, shipper="node_a")
        expected, implausible = [], []
        for given_line in given_lines:
            try:
                expected.append(attributed(given_line))
            except ImplausibleTimeError:
                implausible.append(given_line)
        assert found.implausible == implausible
        assert len(found) == len(expected)
        for row, event in enumerate(expected):
            made = {name: column[row] for name, column in found.columns.items()}
            wanted = {name: value for name, value in asdict(event).items() if name not in ADDED_LATER}
            wanted["occurred_at"] = wanted.pop("occurred_at_ms")
            wanted["mode"], wanted["outcome"] = event.mode.value, event.outcome.value
            assert made.pop("ingested_at") == AT
            assert made == wanted
        assert set(found.columns) in ({*COLUMN_NAMES} - ADDED_LATER, set())
        assert found.hours == {
            (event.account_id, event.occurred_at_ms // 3_600_000 * 3_600_000) for event in expected
        }
        assert found.replay_hours == {
            (event.account_id, event.occurred_at_ms // 3_600_000 * 3_600_000)
            for event in expected
            if "replayed" in event.flags and event.account_id
        }

    def test_reads_lines_as_the_shipper_writes_them(self):
        raw = msgspec.json.encode(served()) + b"\n" + msgspec.json.encode(line(id="2"))
        found, dead = decode_lines(raw, shipper_id="s", segment="g", start_offset=0)
        assert [found_line.id for found_line in found] == ["0" * 32, "2"]
        assert dead == []
