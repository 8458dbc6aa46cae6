"""Counters against stored events against the rollup, hour by hour."""

# ruff: noqa: PLR0917 - fixtures are arguments

from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from control_plane.foundation.clock import to_ms
from control_plane.usage.completeness.counting import keep_counted
from control_plane.usage.completeness.tables import CountedUsage
from control_plane.usage.tables import TouchedHour, UsageHourly
from gateway_contract.counters import SKIPPED, hour_calls, hour_not_counted, hour_number, hour_revision
from gateway_contract.outcomes import Outcome

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
# after lateness and the time that calls may take
LATER = HOUR + 15 * MINUTE


@pytest.fixture
def ship(gateway, collect):
    """Everything is shipped up to two hours after noon, unless said otherwise."""

    async def ship(calls, *, up_to=2 * HOUR, noon):
        await gateway.ship(calls, shipped_up_to=noon + up_to)
        await collect(now=noon + HOUR)

    return ship


class TestACompleteHour:
    async def test_is_found_complete(self, gateway, ship, checks, counter, noon):
        calls = gateway.calls(20)
        refused = gateway.calls(3, outcome=Outcome.RATE_LIMITED, units=0, status=429)
        await counter.admit(calls)
        await ship([*calls, *(_unnumbered(call) for call in refused)], noon=noon)
        await checks.seal(noon + LATER)
        await checks.run(noon + LATER)
        row = await checks.row()
        assert (row.state, row.admitted, row.stored, row.rolled_up, row.missing_calls) == (
            "complete",
            20,
            20,
            20,
            0,
        )
        assert row.numbers == [{"first": 1, "last": 20}]
        hour = await checks.hour()
        assert (hour.differs_since, hour.settled) == (None, "pending")
        assert await checks.alerts() == []

    async def test_calls_made_while_redis_was_away_are_counted_apart(self, gateway, ship, checks, counter, noon):
        calls = gateway.calls(20)
        await counter.admit(calls)
        away = [_unnumbered(call) for call in gateway.calls(4)]
        await ship([*calls, *away], noon=noon)
        await checks.seal(noon + LATER)
        await checks.run(noon + LATER)
        row = await checks.row()
        assert (row.state, row.stored, row.unnumbered, row.rolled_up) == ("complete", 20, 4, 24)

    async def test_stays_complete_after_redis_lost_everything(self, gateway, ship, checks, counter, noon, lose):
        calls = gateway.calls(20)
        await counter.admit(calls)
        await checks.run(noon + HOUR + MINUTE)  # the hour has just ended: what counters say is kept
        await lose()
        await ship(calls, noon=noon)
        await checks.seal(noon + LATER)
        await checks.run(noon + LATER)
        assert (await checks.row()).state == "complete"

    async def test_is_counted_by_the_check_where_it_ended_long_before_the_first_round(
        self, gateway, ship, checks, counter, noon
    ):
        calls = gateway.calls(20)
        await counter.admit([*calls, *gateway.calls(3, noon + 5 * HOUR)])
        await ship(calls, noon=noon)
        await checks.seal(noon + 40 * HOUR)
        await checks.run(noon + 40 * HOUR)
        row = await checks.row()
        assert (row.state, row.numbers) == ("complete", [{"first": 1, "last": 20}])


class TestAMissingCall:
    async def test_is_named_with_its_number_the_time_and_the_node(self, gateway, ship, checks, counter, noon):
        calls = gateway.calls(20)
        await counter.admit(calls)
        await ship([call for call in calls if call.number not in {7, 8, 15}], noon=noon)
        await checks.seal(noon + LATER)
        await checks.run(noon + LATER)
        row = await checks.row()
        assert (row.state, row.admitted, row.stored, row.missing_calls) == ("missing", 20, 17, 3)
        first, second = row.missing
        assert (first["first"], first["last"], second["first"], second["last"]) == (7, 8, 15, 15)
        assert (first["after_ms"], first["before_ms"]) == (to_ms(calls[5].at), to_ms(calls[8].at))
        # the process lives on, but lacks decisions
        assert first["nodes"] == ["node_a/testemitter"]

    async def test_is_told_once(self, gateway, ship, checks, counter, noon):
        calls = gateway.calls(5)
        await counter.admit(calls)
        await ship(calls[1:], noon=noon)
        await checks.seal(noon + LATER)
        await checks.run(noon + LATER)
        await checks.run(noon + LATER + 2 * HOUR)
        (alert,) = await checks.alerts()
        assert alert["reason"] == "missing"
        assert (alert["account_id"], alert["missing_calls"], alert["numbers"]) == ("acc_1", 1, ["1-1"])

    async def test_that_arrives_late_makes_the_hour_complete(self, gateway, ship, checks, counter, noon):
        calls = gateway.calls(5)
        await counter.admit(calls)
        await ship(calls[1:], noon=noon)
        await checks.seal(noon + LATER)
        await checks.run(noon + LATER + 20 * MINUTE)  # by now the next look is an hour away
        assert (await checks.row()).state == "missing"
        await ship(calls[:1], noon=noon, up_to=4 * HOUR)
        await checks.seal(noon + LATER + 21 * MINUTE)
        await checks.run(noon + LATER + 21 * MINUTE)
        row = await checks.row()
        assert (row.state, row.stored, row.missing) == ("complete", 5, [])

    async def test_is_waited_for_while_calls_may_still_be_under_way(self, gateway, ship, checks, counter, noon):
        calls = gateway.calls(5)
        await counter.admit(calls)
        await ship(calls[1:], noon=noon)
        soon = noon + HOUR + 3 * MINUTE
        await checks.seal(soon)
        await checks.run(soon)
        assert ((await checks.row()).state, await checks.alerts()) == ("waiting", [])
        await checks.run(noon + LATER)
        assert (await checks.row()).state == "missing"

    async def test_is_not_looked_for_while_a_shipper_lags(self, gateway, ship, checks, counter, noon):
        calls = gateway.calls(5)
        await counter.admit(calls)
        await ship(calls[:2], noon=noon, up_to=MINUTE)
        await checks.seal(noon + LATER)
        await checks.run(noon + LATER)
        row = await checks.row()
        assert (row.state, row.checked_at) == ("waiting", None)

    async def test_is_found_where_no_event_of_the_hour_has_come(self, gateway, checks, counter, noon):
        await counter.admit(gateway.calls(3))
        await checks.run(noon + LATER)
        row = await checks.row()
        assert (row.state, row.missing_calls) == ("missing", 3)
        assert row.missing[0]["after_ms"] is None

    async def test_is_not_billed(self, gateway, ship, checks, counter, noon, sessions):
        calls = gateway.calls(5)
        await counter.admit(calls)
        await ship(calls[1:], noon=noon)
        await checks.seal(noon + LATER)
        await checks.run(noon + LATER)
        assert (await checks.row()).rolled_up == 4

    async def test_in_the_next_hour_is_not_taken_for_one_of_this(self, gateway, ship, checks, counter, noon):
        calls = [*gateway.calls(5, noon + HOUR - MINUTE), *gateway.calls(5, noon + HOUR + MINUTE)]
        await counter.admit(calls)
        await ship([call for call in calls if call.number != 6], noon=noon, up_to=4 * HOUR)
        await checks.seal(noon + 3 * HOUR)
        await checks.run(noon + 3 * HOUR)
        first, second = await checks.rows()
        assert (first.state, second.state) == ("complete", "missing")
        assert second.missing[0]["after_ms"] == to_ms(calls[4].at)


class TestLostCounters:
    async def test_make_an_hour_unknown_not_missing(self, gateway, ship, checks, counter, noon, lose):
        calls = gateway.calls(10)
        await counter.admit(calls)
        await lose()
        await ship(calls[:9], noon=noon)
        await checks.seal(noon + LATER)
        await checks.run(noon + LATER)
        row = await checks.row()
        assert (row.state, row.missing_calls, row.counted_at) == ("unknown", 0, None)

    async def test_that_were_restored_send_nobody_looking_for_numbers_never_issued(
        self, gateway, ship, checks, counter, noon, counters
    ):
        calls = gateway.calls(10)
        await counter.admit(calls)
        away = [_unnumbered(call) for call in gateway.calls(4)]  # as if numbers 11 to 14 were theirs
        hour = hour_number(to_ms(noon))
        # what restoring does once usage knows of 14 calls
        await counters.hset(
            counter.name,
            mapping={"calls": 14, hour_calls(hour): 14, hour_not_counted(hour): 4, SKIPPED: "11-14"},
        )
        later = gateway.calls(3)
        await counter.admit(later)
        await ship([*calls, *away, *later], noon=noon)
        await checks.seal(noon + LATER)
        await checks.run(noon + LATER)
        row = await checks.row()
        assert (row.state, row.admitted, row.not_counted, row.unnumbered) == ("complete", 13, 4, 4)

    async def test_that_went_back_to_older_data_leave_a_surplus(self, gateway, ship, checks, counter, noon):
        calls = gateway.calls(10)
        await counter.admit(calls[:7])
        await ship(calls, noon=noon)
        await checks.seal(noon + LATER)
        await checks.run(noon + LATER)
        assert (await checks.row()).state == "surplus"
        assert [alert["reason"] for alert in await checks.alerts()] == ["surplus"]


class TestRollups:
    async def test_that_differ_from_what_is_stored_are_redone_and_told(
        self, gateway, ship, checks, counter, noon, sessions
    ):
        calls = gateway.calls(5)
        await counter.admit(calls)
        await ship(calls, noon=noon)
        await checks.seal(noon + LATER)
        async with sessions() as session, session.begin():
            await session.execute(update(UsageHourly).values(bytes_out=UsageHourly.bytes_out + 1))
        await checks.run(noon + LATER)
        assert ((await checks.hour()).differs_since, await checks.alerts()) == (noon + LATER, [])
        await checks.run(noon + LATER + MINUTE)
        (alert,) = await checks.alerts()
        assert alert["reason"] == "rollup_differs"
        assert alert["differences"][0]["rolled_up"]["bytes_out"] == 6001
        async with sessions() as session:
            assert await session.get(TouchedHour, ("acc_1", noon)) is not None
        await checks.seal(noon + LATER + 2 * MINUTE)
        await checks.run(noon + LATER + 2 * MINUTE)
        assert (await checks.hour()).differs_since is None

    async def test_of_calls_of_nobody_are_compared_too(self, gateway, ship, checks, noon):
        line = gateway.calls(1)[0].line() | {"ru": "", "ra": "-.no_key"}
        await ship([line], noon=noon)
        await checks.seal(noon + LATER)
        await checks.run(noon + LATER)
        assert (await checks.hour("")).settled == "none"


class TestSettledHours:
    @pytest.mark.parametrize(("units", "settled"), [(4, "yes"), (5, "differs")])
    async def test_must_hold_what_was_billed(self, gateway, ship, checks, counter, noon, counters, units, settled):
        calls = [*gateway.calls(4), *gateway.calls(1, status=503)]
        await counter.admit(calls)
        await ship(calls, noon=noon)
        await checks.seal(noon + LATER)
        hour = hour_number(to_ms(noon))
        await counters.hset(counter.name, mapping={f"u:{hour}": units, hour_revision(hour): 1})
        await checks.run(noon + LATER)
        assert (await checks.hour()).settled == settled
        reasons = [alert["reason"] for alert in await checks.alerts()]
        assert reasons == (["wrongly_settled"] if settled == "differs" else [])


class TestCountedHours:
    async def test_are_kept_however_many_there_are(self, sessions, noon):
        """A day's hours of a page of busy subscriptions: more than the parameters of one statement."""
        number = {"admitted": 1, "not_counted": 0, "numbers": [], "counted_at": noon, "period_start": noon}
        owner = {"account_id": "acc_1", "product": "weather", "mode": "live"}
        rows = [
            {**number, **owner, "hour": noon - hour * HOUR, "subscription_id": f"sub_{subscription}"}
            for subscription in range(300)
            for hour in range(24)
        ]
        async with sessions() as session, session.begin():
            await keep_counted(session, rows)
            assert await session.scalar(select(func.sum(CountedUsage.admitted))) == len(rows)


class TestARound:
    async def test_twice_changes_nothing(self, gateway, ship, checks, counter, noon):
        calls = gateway.calls(5)
        await counter.admit(calls)
        await ship(calls, noon=noon)
        await checks.seal(noon + LATER)
        assert await checks.run(noon + LATER) == 2  # one check, one digest
        first = await checks.row()
        assert await checks.run(noon + LATER + timedelta(seconds=1)) == 0
        assert (await checks.row()).checked_at == first.checked_at

    async def test_puts_an_hour_off_that_cannot_be_checked(
        self, gateway, ship, checks, counter, noon, monkeypatch
    ):
        calls = gateway.calls(5)
        await counter.admit(calls)
        await ship(calls, noon=noon)
        await checks.seal(noon + LATER)

        def fail(*_args, **_options):
            raise OSError("too large")

        with monkeypatch.context() as patched:
            patched.setattr(checks.worker._store, "hour_figures", fail)
            for _ in range(20):
                try:
                    await checks.run(noon + LATER)
                    break
                except OSError:
                    continue
            assert (await checks.hour()).revision == -1
        await checks.run(noon + LATER + 6 * MINUTE)
        assert (await checks.row()).state == "complete"


def _unnumbered(call):
    """The line of a call that got no number: refused, or made while Redis was away."""
    from dataclasses import replace

    from gateway_contract.receipts import Place, sign_receipt

    receipt = replace(call.receipt, call_number=0)
    secret = b"a gateway secret of more than 32 characters"
    line = call.line()
    if line["ru"]:
        line["ru"] = sign_receipt(receipt, place=Place.UPSTREAM, secret=secret)
    return line | {"ra": sign_receipt(receipt, place=Place.ANSWER, secret=secret)}
