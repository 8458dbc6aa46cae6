"""A subscription that has ended, as the gateway sees it while nothing writes records any more."""

from itertools import pairwise

import pytest

from gateway_contract.records import Period
from kong_plugins.parts.limit_script import NO_PERIOD, STALE, is_over
from tests.plugins.fakes import HOUR_MS, PRODUCT, grant, now_ms


def ended(*, periods):
    """Periods of an hour, the last of which ended a minute ago."""
    end = now_ms() - 60_000
    edges = [end - number * HOUR_MS for number in range(periods, -1, -1)]
    return grant(periods=tuple(Period(start, stop) for start, stop in pairwise(edges)))


class TestEndedSubscription:
    def test_is_not_subscribed_where_its_last_period_was_the_only_one_known(self, call, project):
        kong = call(project(grant=ended(periods=1)).text)
        assert (kong.status, kong.code) == (403, "not_subscribed")

    def test_cannot_be_told_from_old_records_that_know_a_next_period(self, call, project):
        kong = call(project(grant=ended(periods=2)).text)
        assert (kong.status, kong.code) == (503, "unavailable")

    def test_is_believed_of_freshly_read_records_only(self, call, project, worker):
        """Whoever was cached before the end is read again, and found to go on."""
        account = project(grant=ended(periods=1))
        known = worker.cache.read(account.key_hash)
        known.account.read_at -= 100
        renewed = grant()
        account.account = type(account.account)(
            id=account.account.id,
            name=account.account.name,
            status=account.account.status,
            version=account.account.version,
            products={PRODUCT: renewed},
        )
        account.write()
        assert call(account.text).served

    def test_is_believed_of_the_newest_version_only(self, call, project, worker):
        account = project(grant=ended(periods=1))
        worker.cache.read(account.key_hash)
        account.change_account(products={PRODUCT: grant()})
        assert call(account.text).served

    def test_may_be_renewed(self, call, project):
        account = project(grant=ended(periods=1))
        assert call(account.text).code == "not_subscribed"
        account.change_account(products={PRODUCT: grant()})
        assert call(account.text).served

    def test_consumes_nothing(self, call, project):
        account = project(grant=ended(periods=1))
        call(account.text)
        assert account.counters() == {}

    def test_that_has_not_begun_by_redis_clock_is_not_over(self, call, project):
        start = now_ms() + HOUR_MS
        kong = call(project(grant=grant(periods=(Period(start, start + HOUR_MS),))).text)
        assert kong.code == "unavailable"

    def test_of_no_period_at_all_is_not_over(self, call, project):
        assert call(project(grant=grant(periods=())).text).code == "unavailable"

    @pytest.mark.parametrize(("after_end_ms", "over"), [(-1, False), (0, True)])
    def test_ends_with_the_period(self, timed, after_end_ms, over):
        start = now_ms() - HOUR_MS
        caller = timed(windows=(), periods=(Period(start, start + 2 * HOUR_MS),))
        at_ms = caller.grant.periods[0].end_ms + after_end_ms
        answer = caller.ask((at_ms - caller.start_us // 1000) * 1000)
        assert (answer[0] == STALE and answer[2] == NO_PERIOD) == over
        assert is_over(caller.grant.periods, at_ms) == over
