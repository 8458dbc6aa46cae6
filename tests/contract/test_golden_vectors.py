"""Both sides read and write the byte forms in golden.json; a change here breaks gateways already in the field."""

import json
from pathlib import Path

import pytest

from gateway_contract import api_keys, counters, file_log, receipts, records, redis_names
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.usage_events import UsageEvent, is_billable

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
SECRET = GOLDEN["receipts"]["secret"].encode()


class TestApiKeys:
    @pytest.mark.parametrize("vector", GOLDEN["api_keys"])
    def test_known_keys_keep_mode_hash_and_hint(self, vector):
        assert api_keys.parse_api_key(vector["text"]) == vector["mode"]
        assert api_keys.hash_api_key(vector["text"]) == vector["sha256"]
        assert api_keys.api_key_hint(vector["text"]) == vector["hint"]

    @pytest.mark.parametrize("text", GOLDEN["bad_api_keys"])
    def test_anything_else_is_refused_without_a_look_up(self, text):
        assert api_keys.parse_api_key(text) is None

    def test_new_keys_are_valid_and_differ(self):
        keys = {api_keys.generate_api_key(mode) for mode in Mode for _ in range(50)}
        assert len(keys) == 100
        assert all(api_keys.parse_api_key(key) is not None for key in keys)

    def test_every_single_mistyped_character_is_noticed(self):
        key = GOLDEN["api_keys"][2]["text"]
        for place in range(len(key)):
            wrong = "A" if key[place] != "A" else "B"
            assert api_keys.parse_api_key(key[:place] + wrong + key[place + 1 :]) is None

    def test_redaction_leaves_no_key(self):
        key = GOLDEN["api_keys"][0]["text"]
        text = api_keys.redact_api_keys(f"apikey: {key}, again={key}&x")
        assert key[8:] not in text
        assert text.count("km_live_[redacted]") == 2


class TestReceipts:
    @pytest.mark.parametrize("vector", GOLDEN["receipts"]["vectors"])
    def test_known_receipts_are_written_and_read_alike(self, vector):
        fields = {k: v for k, v in vector.items() if k not in {"event_id", "upstream_text", "answer_text"}}
        fields |= {"mode": Mode(fields["mode"]), "outcome": Outcome(fields["outcome"])}
        receipt = receipts.Receipt(**fields)
        assert receipt.event_id == vector["event_id"]
        for place, text in (("u", vector["upstream_text"]), ("a", vector["answer_text"])):
            assert receipts.sign_receipt(receipt, place=receipts.Place(place), secret=SECRET) == text
            found = receipts.verify_receipt(text, place=receipts.Place(place), secrets=(b"x" * 32, SECRET))
            assert found == receipt

    def test_the_answers_receipt_does_not_pass_as_the_upstreams(self):
        text = GOLDEN["receipts"]["vectors"][0]["answer_text"]
        assert receipts.verify_receipt(text, place=receipts.Place.UPSTREAM, secrets=(SECRET,)) is None

    @pytest.mark.parametrize("text", ["", ".", "1." * 12, "é", "é" * 12 + "." * 11 + "ü", "9" * 600, "-.no_key"])
    def test_nonsense_is_no_receipt(self, text):
        assert receipts.verify_receipt(text, place=receipts.Place.UPSTREAM, secrets=(SECRET,)) is None

    def test_any_changed_character_breaks_the_mac(self):
        text = GOLDEN["receipts"]["vectors"][0]["upstream_text"]
        for place, character in enumerate(text):
            changed = text[:place] + ("0" if character != "0" else "1") + text[place + 1 :]
            assert receipts.verify_receipt(changed, place=receipts.Place.UPSTREAM, secrets=(SECRET,)) is None

    def test_notes_name_refusals_without_an_account(self):
        for outcome, note in GOLDEN["notes"].items():
            assert receipts.refusal_note(Outcome(outcome)) == note
            assert receipts.parse_refusal_note(note) == outcome
        assert receipts.parse_refusal_note("-.served") is None
        assert receipts.parse_refusal_note("-.anything") is None

    @pytest.mark.parametrize("text", ["", "short", "x" * 31, "x" * 40 + ",short"])
    def test_weak_secrets_are_refused(self, text):
        with pytest.raises(receipts.WeakSecretError):
            receipts.parse_secrets(text)


class TestRecords:
    def test_known_records_are_read_and_written_alike(self):
        key = records.decode_key_record(GOLDEN["key_record"]["json"])
        account = records.decode_account_record(GOLDEN["account_record"]["json"].encode())
        assert records.encode_record(key) == GOLDEN["key_record"]["json"]
        assert records.encode_record(account) == GOLDEN["account_record"]["json"]
        assert key.windows == (records.Window(5, 1000),)
        assert account.products["weather"].quota == records.Quota(50000, hard=False, cap_units=90000)

    def test_records_of_an_older_control_plane_are_read(self):
        account = records.decode_account_record(GOLDEN["older_account_record"]["json"])
        grant = account.products["weather"]
        assert grant.quota == records.Quota(50000, hard=False)
        assert (grant.concurrency, grant.spend_cap, grant.payment_due) == (None, None, False)

    def test_records_of_a_control_plane_that_counts_no_allowances_apart_are_read(self):
        account = records.decode_account_record(GOLDEN["released_account_record"]["json"])
        grant = account.products["weather"]
        assert (grant.spend_cap.amount_minor, grant.spend_cap.prepaid, grant.payment_due) == (25000, False, True)
        assert (grant.allowance, grant.next, grant.paused) == (None, None, False)

    def test_unknown_fields_are_ignored(self):
        value = json.loads(GOLDEN["key_record"]["json"]) | {"new": 1}
        assert records.decode_key_record(json.dumps(value)).id == "key_1"

    @pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"id":1}', "\x00"])
    def test_unreadable_records_say_so(self, text):
        with pytest.raises(records.RecordError):
            records.decode_key_record(text)
        with pytest.raises(records.RecordError):
            records.decode_account_record(text)


class TestRedisNames:
    def test_names_stay(self):
        names = GOLDEN["redis_names"]
        assert redis_names.key_record("ab" * 32) == names["key_record"]
        assert redis_names.account_record("acc_1") == names["account_record"]
        assert redis_names.account_versions("acc_1") == names["account_versions"]
        assert redis_names.window_state("acc_1", "sub_1", 1000, Mode.LIVE, "log") == names["window_state"]
        assert redis_names.period_counters("acc_1", "sub_1", 1793491200000, Mode.TEST) == names["period_counters"]
        assert redis_names.key_counters("acc_1", "key_1", 1793491200000) == names["key_counters"]
        assert redis_names.in_flight("acc_1", "weather", Mode.TEST) == names["in_flight"]
        assert redis_names.usage_stream(3) == names["usage_stream"]
        assert redis_names.shipper_epoch(3, "shp_1") == names["shipper_epoch"]
        assert redis_names.shipper_positions(3, "shp_1") == names["shipper_positions"]
        assert redis_names.projection_marker("aba") == names["marker"]
        assert names["channel"] == redis_names.INVALIDATIONS_CHANNEL

    def test_what_one_script_touches_is_in_one_slot(self):
        tagged = (
            "account_record",
            "account_versions",
            "window_state",
            "period_counters",
            "key_counters",
            "in_flight",
        )
        assert {name.split("{")[1].split("}")[0] for name in map(GOLDEN["redis_names"].get, tagged)} == {"acc_1"}

    def test_counter_fields_stay(self):
        fields = GOLDEN["counter_fields"]
        hour = counters.hour_number(1795392600477)
        assert hour == fields["hour"]
        assert counters.hour_calls(hour) == fields["calls"]
        assert counters.hour_units(hour) == fields["units"]
        assert counters.hour_revision(hour) == fields["revision"]
        assert counters.dimension_units("tokens") == fields["dimension"]
        assert counters.hour_dimension_units("tokens", hour) == fields["hour_dimension"]


class TestPrivacyExpression:
    def test_text_stays(self):
        known = GOLDEN["privacy_expression"]
        assert file_log.render_privacy_expression() == known["plain"]
        units = {"tokens": "X-Usage-Tokens", "compute_ms": "X-Compute-Ms"}
        assert file_log.render_privacy_expression(units) == known["units"]
        replay = ("Idempotent-Replayed", "X-Replayed")
        assert file_log.render_privacy_expression(units, replay) == known["replay"]

    def test_it_is_recognised_with_its_unit_headers(self):
        known = GOLDEN["privacy_expression"]
        assert file_log.parse_privacy_expression(known["plain"]) == file_log.LoggedHeaders()
        units = {"tokens": "x-usage-tokens", "compute_ms": "x-compute-ms"}
        assert file_log.parse_privacy_expression(known["units"]) == file_log.LoggedHeaders(units)
        replay = ("idempotent-replayed", "x-replayed")
        assert file_log.parse_privacy_expression(known["replay"]) == file_log.LoggedHeaders(units, replay)

    @pytest.mark.parametrize(
        "change", [(" return nil", " return 1"), ("km_receipt'", "km_recipe'"), ("nil)", "1)")]
    )
    def test_any_other_lua_is_not(self, change):
        text = GOLDEN["privacy_expression"]["plain"].replace(*change, 1)
        assert file_log.parse_privacy_expression(text) is None

    @pytest.mark.parametrize("units", [{"Tokens": "x"}, {"tokens": "x')os.exit()--"}, {"": "x"}, {"a": ""}])
    def test_names_cannot_carry_lua(self, units):
        with pytest.raises(file_log.UnitHeaderError):
            file_log.render_privacy_expression(units)


class TestUsageEvent:
    def test_export_form_stays(self):
        known = dict(GOLDEN["usage_event"])
        assert known.pop("version") == 1
        fields = known | {
            "mode": Mode(known["mode"]),
            "outcome": Outcome(known["outcome"]),
            "flags": tuple(known["flags"]),
        }
        assert UsageEvent(**fields).as_dict() == GOLDEN["usage_event"]

    @pytest.mark.parametrize(
        ("account", "mode", "outcome", "status", "billed"),
        [
            ("acc_1", Mode.LIVE, Outcome.SERVED, 200, True),
            ("acc_1", Mode.LIVE, Outcome.SERVED, 404, True),
            ("acc_1", Mode.LIVE, Outcome.SERVED, 499, True),
            ("acc_1", Mode.LIVE, Outcome.SERVED, 500, False),
            ("acc_1", Mode.TEST, Outcome.SERVED, 200, False),
            ("acc_1", Mode.LIVE, Outcome.RATE_LIMITED, 429, False),
            ("", Mode.LIVE, Outcome.UNATTRIBUTED, 200, False),
        ],
    )
    def test_only_served_live_calls_below_500_are_billed(self, account, mode, outcome, status, billed):
        assert is_billable(account_id=account, mode=mode, outcome=outcome, status=status) is billed
