from datetime import datetime, timedelta

import pytest
from sqlalchemy import text

from control_plane.foundation.clock import to_ms
from control_plane.foundation.period import period_containing
from control_plane.gateway_sync.settlement import settle_sealed_hours
from control_plane.gateway_sync.sweep import rebuild
from control_plane.subscriptions.statuses import change_status
from gateway_contract.counters import (
    CALLS,
    SKIPPED,
    UNITS,
    hour_calls,
    hour_not_counted,
    hour_number,
    hour_revision,
    hour_units,
    parse_skipped,
)
from gateway_contract.modes import Mode
from gateway_contract.redis_names import key_counters, period_counters

PUBLIC_URL = "https://api.example.com"
HOUR = timedelta(hours=1)


@pytest.fixture
async def ada(shop, now):
    await shop.add_catalog(now)
    return await shop.add_customer(now - timedelta(days=3), quota_units=100)


@pytest.fixture
def past(now):
    """A full hour before `now`, in the same billing period."""
    return now.replace(minute=0, second=0, microsecond=0) - 5 * HOUR


def number(hour: datetime) -> int:
    return hour_number(to_ms(hour))


class Counters:
    """The counters of one customer's current period, as the limit script keeps them."""

    def __init__(self, gateway, customer, now, mode=Mode.LIVE):
        anchor = (now - timedelta(days=3)).replace(minute=0, second=0, microsecond=0)
        self.period = period_containing(now, anchor, "month", "UTC")
        self.redis = gateway.client
        self.name = period_counters(customer.account_id, customer.subscription_id, self.period.start_ms, mode)
        self.key_name = key_counters(customer.account_id, customer.keys[0], self.period.start_ms)

    async def admit(self, hour: datetime, *, units: int) -> None:
        for name in (self.name, self.key_name):
            await self.redis.hincrby(name, CALLS, units)
            await self.redis.hincrby(name, UNITS, units)
            await self.redis.hincrby(name, hour_calls(number(hour)), units)
            await self.redis.hincrby(name, hour_units(number(hour)), units)

    async def read(self, name: str | None = None) -> dict[str, int]:
        found = await self.redis.hgetall(name or self.name)
        return {key: int(value) for key, value in found.items() if key != SKIPPED}

    async def skipped(self) -> str | None:
        return await self.redis.hget(self.name, SKIPPED)


async def settle(shop, gateway, now):
    return await settle_sealed_hours(shop.sessions, gateway.client, now=now)


class TestSettleHour:
    async def test_overwrites_the_hour_with_billed_units_and_moves_the_total(self, shop, gateway, now, past, ada):
        counters = Counters(gateway, ada, now)
        await counters.admit(past, units=10)
        await counters.admit(past + HOUR, units=3)
        await shop.add_usage(ada, past, units=6, failed_units=3, revision=2, sealed=True)
        await shop.seal(ada, past, revision=2)
        assert await settle(shop, gateway, now) == 1
        found = await counters.read()
        assert found[hour_units(number(past))] == 6
        assert found[hour_revision(number(past))] == 2
        assert found[hour_units(number(past + HOUR))] == 3
        assert found[UNITS] == 9
        assert (found[CALLS], found[hour_calls(number(past))]) == (13, 10)
        assert (await counters.read(counters.key_name))[UNITS] == 9

    async def test_settles_each_account_of_an_hour_by_its_own_figures(self, shop, gateway, now, past, ada):
        others = [
            await shop.add_customer(now - timedelta(days=3), quota_units=100, name=name)
            for name in ("Bob", "Cleo")
        ]
        counters = [Counters(gateway, customer, now) for customer in (ada, *others)]
        for customer, units, sealed in ((ada, 6, True), (others[0], 4, True), (others[1], 2, False)):
            await counters[(ada, *others).index(customer)].admit(past, units=10)
            await shop.add_usage(customer, past, units=units, revision=1, sealed=sealed)
            await shop.seal(customer, past, revision=1)
        assert await settle(shop, gateway, now) == 3
        # the last one's hour is open again: what was admitted stands
        assert [(await one.read())[UNITS] for one in counters] == [6, 4, 10]
        assert [(await one.read(one.key_name))[UNITS] for one in counters] == [6, 4, 10]

    async def test_takes_what_an_amendment_adds_and_never_leaves_a_key_below_zero(
        self, shop, gateway, now, past, ada
    ):
        counters = Counters(gateway, ada, now)
        await counters.admit(past, units=10)
        await shop.add_usage(ada, past, units=6, revision=2, sealed=True)
        async with shop.sessions() as session, session.begin():
            for key_id, amendment_id, units in (("", "uam_1", 9), (ada.keys[0], "uam_2", -8)):
                await session.execute(
                    text(
                        "INSERT INTO usage_hourly (account_id, hour, phase_id, product, mode, key_id, endpoint, "
                        "status, outcome, amendment_id, calls, units, billable_calls, billable_units, bytes_in, "
                        "bytes_out, latency_ms_sum, gateway_ms_sum, revision) "
                        "SELECT account_id, hour, phase_id, product, mode, :key_id, '', 0, 'amended', "
                        ":amendment_id, 0, :units, 0, :units, 0, 0, 0, 0, 2 FROM usage_hourly "
                        "WHERE hour = :hour AND amendment_id = '' AND billable_units > 0"
                    ),
                    {"key_id": key_id, "amendment_id": amendment_id, "units": units, "hour": past},
                )
        await shop.seal(ada, past, revision=2)
        await settle(shop, gateway, now)
        found = await counters.read()
        assert (found[UNITS], found[CALLS]) == (7, 10)
        assert (await counters.read(counters.key_name))[UNITS] == 0

    async def test_twice_is_once(self, shop, gateway, now, past, ada):
        counters = Counters(gateway, ada, now)
        await counters.admit(past, units=10)
        await shop.add_usage(ada, past, units=6, revision=1, sealed=True)
        await shop.seal(ada, past, revision=1)
        await settle(shop, gateway, now)
        first = await counters.read()
        await shop.seal(ada, past, revision=1)
        assert await settle(shop, gateway, now) == 1
        assert await counters.read() == first

    async def test_a_later_revision_moves_the_hour_again(self, shop, gateway, now, past, ada):
        counters = Counters(gateway, ada, now)
        await counters.admit(past, units=10)
        for revision, units in ((1, 6), (2, 8)):
            await shop.add_usage(ada, past, units=units, revision=revision, sealed=True)
            await shop.seal(ada, past, revision=revision)
            await settle(shop, gateway, now)
        assert (await counters.read())[UNITS] == 8

    async def test_an_older_revision_never_wins(self, shop, gateway, now, past, ada):
        counters = Counters(gateway, ada, now)
        await counters.admit(past, units=10)
        await shop.add_usage(ada, past, units=8, revision=2, sealed=True)
        await shop.seal(ada, past, revision=2)
        await settle(shop, gateway, now)
        await shop.add_usage(ada, past, units=6, revision=1, sealed=True)  # as a stale reader would see it
        await shop.seal(ada, past, revision=1)
        await settle(shop, gateway, now)
        assert (await counters.read())[UNITS] == 8

    async def test_gives_back_calls_that_were_never_logged(self, shop, gateway, now, past, ada):
        counters = Counters(gateway, ada, now)
        await counters.admit(past, units=10)
        await shop.add_usage(ada, past, units=0, revision=1, sealed=True)
        await shop.seal(ada, past, revision=1)
        await settle(shop, gateway, now)
        assert (await counters.read())[UNITS] == 0

    async def test_a_test_quota_is_given_back_for_failed_calls_only(self, shop, gateway, now, past, ada):
        counters = Counters(gateway, ada, now, Mode.TEST)
        await counters.admit(past, units=10)
        await shop.add_usage(ada, past, units=7, failed_units=3, mode="test", revision=1, sealed=True)
        await shop.seal(ada, past, revision=1)
        await settle(shop, gateway, now)
        assert (await counters.read())[UNITS] == 7
        assert await Counters(gateway, ada, now, Mode.LIVE).read() == {}

    @pytest.mark.parametrize("mode", Mode)
    async def test_an_answer_that_was_repeated_gives_its_quota_back(self, shop, gateway, now, past, ada, *, mode):
        counters = Counters(gateway, ada, now, mode)
        await counters.admit(past, units=10)
        await shop.add_usage(
            ada, past, units=6, failed_units=3, replayed_units=1, mode=mode, revision=1, sealed=True
        )
        await shop.seal(ada, past, revision=1)
        await settle(shop, gateway, now)
        assert (await counters.read())[UNITS] == 6

    async def test_an_hour_that_was_opened_again_is_left_alone(self, shop, gateway, now, past, ada):
        counters = Counters(gateway, ada, now)
        await counters.admit(past, units=10)
        await shop.add_usage(ada, past, units=6, revision=1, sealed=False)
        await shop.seal(ada, past, revision=1)
        assert await settle(shop, gateway, now) == 1
        assert (await counters.read())[UNITS] == 10

    async def test_counters_it_had_to_make_are_forgotten_one_day(self, shop, gateway, now, past, ada):
        counters = Counters(gateway, ada, now)
        await shop.add_usage(ada, past, units=6, revision=1, sealed=True)
        await shop.seal(ada, past, revision=1)
        await settle(shop, gateway, now)
        forgotten_at_ms = await gateway.client.pexpiretime(counters.name)
        assert forgotten_at_ms == to_ms(counters.period.end + timedelta(days=40))

    async def test_calls_of_nobody_have_no_counters(self, shop, gateway, now, past, ada):
        ada.account_id = ""
        await shop.seal(ada, past, revision=1)
        assert await settle(shop, gateway, now) == 1


class TestRestoreCounters:
    async def rebuild(self, shop, gateway, now):
        return await rebuild(shop.engine, gateway.client, public_url=PUBLIC_URL, now=now)

    async def test_quota_use_is_not_forgotten_after_flushall(self, shop, gateway, now, past, ada):
        await shop.add_usage(ada, past, units=40, failed_units=10, revision=3, sealed=True)
        await shop.add_usage(ada, past + HOUR, units=7, failed_units=2, revision=1, sealed=False)
        await gateway.client.flushall()
        report = await self.rebuild(shop, gateway, now)
        counters = Counters(gateway, ada, now)
        expected = {
            hour_calls(number(past)): 50,
            hour_units(number(past)): 40,  # settled: billed units
            hour_revision(number(past)): 3,
            hour_calls(number(past + HOUR)): 9,
            hour_not_counted(number(past)): 50,  # by the limit script, since it was emptied
            hour_not_counted(number(past + HOUR)): 9,
            hour_units(number(past + HOUR)): 9,  # open: everything admitted
            CALLS: 59,
            UNITS: 49,
        }
        assert await counters.read() == expected
        assert await counters.read(counters.key_name) == expected
        assert report.counters == 2
        assert await gateway.client.pexpiretime(counters.name) == to_ms(counters.period.end + timedelta(days=40))

    async def test_a_paused_subscription_goes_on_with_what_it_has_used(self, shop, gateway, now, past, ada):
        await shop.add_usage(ada, past, units=40, revision=3, sealed=True)
        async with shop.sessions() as session, session.begin():
            await change_status(
                session, subscription_id=ada.subscription_id, status="paused", actor="test", now=now
            )
        await gateway.client.flushall()
        await self.rebuild(shop, gateway, now)
        assert (await Counters(gateway, ada, now).read())[UNITS] == 40

    async def test_is_repeatable(self, shop, gateway, now, past, ada):
        await shop.add_usage(ada, past, units=40, revision=3, sealed=True)
        await self.rebuild(shop, gateway, now)
        first = await Counters(gateway, ada, now).read()
        await self.rebuild(shop, gateway, now)
        assert await Counters(gateway, ada, now).read() == first

    async def test_never_lowers_what_the_gateway_counted(self, shop, gateway, now, past, ada):
        counters = Counters(gateway, ada, now)
        await counters.admit(past, units=30)
        await shop.add_usage(ada, past, units=12, revision=1, sealed=False)
        await self.rebuild(shop, gateway, now)
        found = await counters.read()
        assert (found[UNITS], found[CALLS], found[hour_units(number(past))]) == (30, 30, 30)

    async def test_call_numbers_never_go_back(self, shop, gateway, now, past, ada):
        counters = Counters(gateway, ada, now)
        await gateway.client.hset(counters.name, CALLS, 99)
        await shop.add_usage(ada, past, units=12, revision=1, sealed=False)
        await self.rebuild(shop, gateway, now)
        assert (await counters.read())[CALLS] == 99

    async def test_tells_calls_and_numbers_that_it_added_from_those_that_were_counted(
        self, shop, gateway, now, past, ada
    ):
        counters = Counters(gateway, ada, now)
        await counters.admit(past, units=30)
        await shop.add_usage(ada, past, units=34, revision=1, sealed=False)  # four while Redis was away
        for _ in range(2):
            await self.rebuild(shop, gateway, now)
            found = await counters.read()
            assert (found[CALLS], found[hour_calls(number(past))], found[hour_not_counted(number(past))]) == (
                34,
                34,
                4,
            )
            assert await counters.skipped() == "31-34"
        await counters.admit(past, units=1)
        await shop.add_usage(ada, past, units=37, revision=2, sealed=False)
        await self.rebuild(shop, gateway, now)
        assert await counters.skipped() == "31-34 36-37"
        assert parse_skipped(await counters.skipped()) == ((31, 34), (36, 37))

    async def test_leaves_a_settled_hour_to_its_settlement(self, shop, gateway, now, past, ada):
        await shop.add_usage(ada, past, units=8, revision=2, sealed=True)
        await shop.seal(ada, past, revision=2)
        await settle(shop, gateway, now)
        await shop.add_usage(ada, past, units=11, revision=3, sealed=False)  # late calls opened it again
        await self.rebuild(shop, gateway, now)
        assert (await Counters(gateway, ada, now).read())[UNITS] == 8

    async def test_hours_of_an_earlier_period_stay_out(self, shop, gateway, now, ada):
        before = (now - timedelta(days=4)).replace(minute=0, second=0, microsecond=0)
        await shop.add_usage(ada, before, units=8, revision=2, sealed=True)
        await self.rebuild(shop, gateway, now)
        assert await Counters(gateway, ada, now).read() == {}
