"""A dry run refuses nothing for a limit, says what it would have refused, and counts every call."""

import pytest

from gateway_contract import counters, headers
from gateway_contract.outcomes import Outcome
from gateway_contract.records import (
    Concurrency,
    KeyStatus,
    MeterPrice,
    PriceStep,
    Quota,
    RedisDownPolicy,
    SpendCap,
    Window,
)
from kong_plugins.parts import telling
from kong_plugins.parts.limit_script import ADMITTED, WOULD_REFUSE
from kong_plugins.plugins import km_key_auth, km_plan_limit
from tests.plugins.conftest import make_call
from tests.plugins.fakes import (
    PRODUCT,
    FakeKong,
    call_number,
    grant,
)

DRY = {"dry_run": True}
TOKENS = MeterPrice("tokens", (PriceStep(0, 0, 1_000_000),))
LIMITS = {
    "rate_limited; limit=per-minute": {"windows": (Window(2, 60_000),)},
    "rate_limited; limit=concurrent": {"concurrency": Concurrency(2, 60_000)},
    "quota_exceeded; limit=quota": {"quota": Quota(2, hard=True)},
    "quota_exceeded; limit=quota-cap": {"quota": Quota(1, hard=False, cap_units=2)},
    "spend_cap_reached; limit=spend-cap": {
        "spend_cap": SpendCap(20, "usd", usage_minor=20, prices=(TOKENS,), reserves={"forecast": {"tokens": 10}})
    },
}


def limited(**changes):
    return grant(**{"windows": (), "quota": None, **changes})


class TestDryRun:
    @pytest.mark.parametrize(("said", "changes"), LIMITS.items())
    def test_serves_what_a_limit_would_refuse_and_says_so(self, call, project, said, changes):
        account = project(grant=limited(**changes))
        counted = telling._would_refuse[Outcome(said.partition(";")[0])].value
        answers = [call(account.text, config=DRY) for _ in range(4)]
        assert [kong.code for kong in answers] == ["served"] * 4
        assert [kong.answer.get(headers.WOULD_REFUSE) for kong in answers] == [None, None, said, said]
        assert telling._would_refuse[Outcome(said.partition(";")[0])].value == counted + 2

    @pytest.mark.parametrize("changes", LIMITS.values())
    def test_counts_and_numbers_every_call(self, call, project, changes):
        account = project(grant=limited(**changes))
        assert [call_number(call(account.text, config=DRY)) for _ in range(4)] == [1, 2, 3, 4]
        stored = account.counters()
        assert (stored[counters.CALLS], stored[counters.UNITS]) == (4, 4)

    def test_leaves_windows_and_calls_in_flight_as_a_refusal_would(self, timed, client):
        changes = {"windows": (Window(2, 10_000), Window(120, 60_000)), "concurrency": Concurrency(50, 60_000)}
        dry, real = timed(**changes, dry_run=True), timed(**changes)
        real.start_us = dry.start_us
        for at_us in [*range(0, 9_000_000, 700_000), 10_000_000, 10_000_001, 20_000_000]:
            assert (dry.ask(at_us)[0] == WOULD_REFUSE) == (real.ask(at_us)[0] != ADMITTED)
        for mine, others in zip(dry.question.keys[-3:-1], real.question.keys[-3:-1], strict=True):
            assert client.get(mine) == client.get(others)
        assert client.zcard(dry.question.keys[-1]) == client.zcard(real.question.keys[-1])

    def test_shows_the_limit_that_was_hit(self, call, project):
        account = project(grant=limited(windows=(Window(1, 60_000),)))
        call(account.text, config=DRY)
        answer = call(account.text, config=DRY).answer
        assert (answer[headers.LIMIT], answer[headers.REMAINING]) == ("1", "0")

    @pytest.mark.parametrize("said", ["rate_limited; limit=concurrent", "spend_cap_reached; limit=spend-cap"])
    def test_shows_no_limit_that_is_none_of_calls(self, call, project, said):
        account = project(grant=limited(**LIMITS[said]))
        answers = [call(account.text, config=DRY) for _ in range(3)]
        assert headers.WOULD_REFUSE in answers[-1].answer
        assert headers.LIMIT not in answers[-1].answer

    def test_still_refuses_whom_it_does_not_know_and_who_may_not(self, call, project):
        account = project()
        assert call("km_live_nonsense", config=DRY).code == "malformed_key"
        account.change_key(status=KeyStatus.REVOKED)
        assert call(account.text, config=DRY).code == "key_revoked"

    def test_is_off_by_default(self, call, project):
        account = project(grant=limited(windows=(Window(1, 60_000),)))
        assert [call(account.text).code for _ in range(2)] == ["served", "rate_limited"]

    def test_costs_no_call_to_kong(self, call, project):
        account = project(grant=limited(windows=(Window(1, 60_000),)))
        names = [call(account.text, config=DRY).names for _ in range(2)]
        assert names[0] == names[1]

    def test_of_km_plan_limit_too(self, project, worker):
        account = project(grant=limited(windows=(Window(1, 60_000),)))
        said = []
        for _ in range(2):
            kong = FakeKong({"apikey": account.text})
            km_key_auth.Plugin({"api_product": PRODUCT}).access(kong)
            km_plan_limit.Plugin({"api_product": PRODUCT, **DRY}).access(kong)
            assert kong.served
            said.append(kong.answer.get(headers.WOULD_REFUSE))
        assert said == [None, "rate_limited; limit=per-minute"]


class TestDryRunWithoutRedis:
    @pytest.mark.parametrize(
        ("policy", "said"),
        [
            (RedisDownPolicy.OPEN, [None, "rate_limited; limit=per-minute"]),
            (RedisDownPolicy.CLOSED, ["unavailable", "unavailable"]),
        ],
    )
    def test_serves_known_keys_whatever_the_policy(self, own_valkey, start_worker, project_in, policy, said):
        valkey = own_valkey()
        start_worker(valkey.url)
        account = project_in(valkey.url, grant=limited(windows=(Window(1, 60_000),), redis_down=policy))
        assert make_call(account.text, config=DRY).served
        valkey.kill()
        answers = [make_call(account.text, config=DRY) for _ in range(2)]
        assert [kong.code for kong in answers] == ["served", "served"]
        assert [kong.answer.get(headers.WOULD_REFUSE) for kong in answers] == said
