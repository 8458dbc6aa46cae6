"""What rollups answer to dashboards and invoices."""

from datetime import datetime, timedelta

import pytest

from control_plane.catalog.model import MEASURED_METERS
from control_plane.foundation.errors import ValidationFailedError
from control_plane.keys.tables import ApiKey
from control_plane.usage import queries
from control_plane.usage import summary as summaries
from control_plane.usage.queries import billable_units
from control_plane.usage.summary import GroupBy, usage_summary
from control_plane.usage.tables import UsageHourly
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome

# ruff: noqa: PLR0917 - fixtures are arguments

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
LONG_AGO = datetime.fromisoformat("2026-01-01T00:00:00+00:00")


SPLITS = (
    (GroupBy.ENDPOINT, {"GET /weather/v1/current/{city}": 18, "GET /weather/v1/forecast": 2}),
    (GroupBy.STATUS, {"200": 11, "429": 4, "404": 3, "500": 2}),
    (GroupBy.STATUS_CLASS, {"2xx": 11, "4xx": 7, "5xx": 2}),
    (GroupBy.KEY, {"key_1": 10, "key_2": 10}),
    (GroupBy.OUTCOME, {"served": 16, "rate_limited": 4}),
    (GroupBy.MODE, {"live": 14, "test": 6}),
    (GroupBy.PRODUCT, {"weather": 20}),
    (
        GroupBy.HOUR,
        {"2026-03-16T12:00:00Z": 5, "2026-03-17T12:00:00Z": 9, "2026-03-17T13:00:00Z": 6},
    ),
    (GroupBy.DAY, {"2026-03-16T00:00:00Z": 5, "2026-03-17T00:00:00Z": 15}),
    (GroupBy.WEEK, {"2026-03-16T00:00:00Z": 20}),
    (GroupBy.MONTH, {"2026-03-01T00:00:00Z": 20}),
)


@pytest.fixture
async def usage(gateway, collect, aggregate, noon) -> None:
    """Two accounts, two days, all sorts of calls."""
    await gateway.ship(
        [
            *gateway.calls(5, at=noon - DAY),
            *gateway.calls(3, status=404),
            *gateway.calls(2, status=500, path="/weather/v1/forecast"),
            *gateway.calls(4, key="key_2", outcome=Outcome.RATE_LIMITED, status=429),
            *gateway.calls(6, at=noon + HOUR, key="key_2", mode=Mode.TEST),
            *gateway.calls(7, account="acc_2"),
        ]
    )
    await collect()
    await aggregate()


async def summary(sessions, noon, group_by: GroupBy, **more) -> dict[str, int]:
    arguments = {"account_id": "acc_1", "start": noon - 2 * DAY, "end": noon + DAY} | more
    async with sessions() as session:
        rows = await usage_summary(session, group_by=[group_by], **arguments)
        return {row.by[group_by]: row.calls for row in rows}


class TestUsageSummary:
    async def test_splits_calls(self, usage, sessions, noon):
        for group_by, figures in SPLITS:
            found = await summary(sessions, noon, group_by)
            assert found == figures
            if group_by in {GroupBy.HOUR, GroupBy.DAY}:
                assert list(found) == sorted(found)

    async def test_splits_by_several_groups_at_once(self, usage, sessions, noon):
        async with sessions() as session:
            rows = await usage_summary(
                session,
                account_id="acc_1",
                start=noon - DAY,
                end=noon + DAY,
                group_by=[GroupBy.STATUS_CLASS, GroupBy.DAY],
            )
        assert [(row.by["day"][:10], row.by["status_class"], row.calls) for row in rows] == [
            ("2026-03-16", "2xx", 5),
            ("2026-03-17", "4xx", 7),
            ("2026-03-17", "2xx", 6),
            ("2026-03-17", "5xx", 2),
        ]

    @pytest.mark.parametrize("groups", [[], list(GroupBy)])
    async def test_refuses_no_groups_and_too_many(self, sessions, noon, groups):
        async with sessions() as session:
            with pytest.raises(ValidationFailedError, match="groups"):
                await usage_summary(session, start=noon, end=noon + HOUR, group_by=groups)

    async def test_refuses_to_answer_without_end(self, usage, sessions, noon, monkeypatch):
        monkeypatch.setattr(summaries, "MAX_FIGURES", 4)
        assert len(await summary(sessions, noon, GroupBy.STATUS)) == 4
        monkeypatch.setattr(summaries, "MAX_FIGURES", 3)
        with pytest.raises(ValidationFailedError, match="group_by: gives more than 3 figures"):
            await summary(sessions, noon, GroupBy.STATUS)

    async def test_takes_hours_from_start_up_to_end(self, usage, sessions, noon):
        assert await summary(sessions, noon, GroupBy.PRODUCT, start=noon, end=noon + HOUR) == {"weather": 9}

    async def test_filters(self, usage, sessions, noon):
        assert await summary(sessions, noon, GroupBy.KEY, mode="live") == {"key_1": 10, "key_2": 4}
        assert await summary(sessions, noon, GroupBy.MODE, key_id="key_1") == {"live": 10}
        assert await summary(sessions, noon, GroupBy.PRODUCT, product="none") == {}
        assert await summary(sessions, noon, GroupBy.PRODUCT, account_id=None) == {"weather": 27}

    async def test_names_keys(self, usage, sessions, noon, catalog):
        await catalog.account()
        async with sessions() as session, session.begin():
            session.add(
                ApiKey(
                    id="key_1",
                    account_id="acc_1",
                    name="Production",
                    mode="live",
                    key_hash="0" * 64,
                    hint="km_live_abcd...wxyz",
                    scopes=["full"],
                    windows=[],
                    ip_ranges=[],
                    status="active",
                    gateway_version=1,
                    created_at=noon,
                )
            )
        async with sessions() as session:
            rows = await usage_summary(
                session, account_id="acc_1", start=noon - DAY, end=noon + DAY, group_by=[GroupBy.KEY]
            )
        assert {row.by["key"]: row.key_name for row in rows} == {"key_1": "Production", "key_2": ""}

    async def test_refuses_parts_of_hours(self, sessions, noon):
        async with sessions() as session:
            with pytest.raises(ValidationFailedError, match="full hour"):
                await usage_summary(
                    session, start=noon + timedelta(seconds=1), end=noon + HOUR, group_by=[GroupBy.DAY]
                )


def measured(calls: int) -> dict[str, int]:
    return {"bytes_in": 300 * calls, "bytes_out": 1200 * calls, "upstream_ms": 10 * calls}


class TestBillableUnits:
    async def test_are_exact_for_each_phase(self, gateway, collect, aggregate, sessions, catalog, noon):
        await catalog.account()
        await catalog.product()
        versions = [await catalog.plan_version() for _ in range(3)]
        change = noon + timedelta(minutes=30)
        subscription = await catalog.subscription(
            ("ph_1", versions[0], LONG_AGO, change),
            ("ph_2", versions[1], change, noon + 5 * DAY),
            ("ph_3", versions[2], noon + 5 * DAY, None),
        )
        await gateway.ship(
            [
                *gateway.calls(9, at=noon - HOUR),
                *gateway.calls(3, units=2, tokens=10),
                *gateway.calls(2, status=500, tokens=99),
                *gateway.calls(4, mode=Mode.TEST),
                *gateway.calls(5, at=change, units=10, tokens=1),
                *gateway.calls(8, at=noon + DAY),
            ]
        )
        await collect()
        await aggregate()
        async with sessions() as session:
            found = await billable_units(session, subscription_id=subscription, start=noon, end=noon + DAY)
        assert [(phase.phase_id, phase.plan_version_id, phase.calls, phase.units) for phase in found] == [
            ("ph_1", versions[0], 3, {"requests": 6, **measured(3), "tokens": 30}),
            ("ph_2", versions[1], 5, {"requests": 50, **measured(5), "tokens": 5}),
        ]

    async def test_of_bytes_and_times_are_those_of_billed_calls(
        self, gateway, collect, aggregate, sessions, catalog, noon
    ):
        await catalog.account()
        await catalog.product()
        version = await catalog.plan_version()
        subscription = await catalog.subscription(("ph_1", version, LONG_AGO, None))
        billed, unanswered, failed, tested, refused, first, again = (
            *gateway.calls(3),
            *gateway.calls(1, mode=Mode.TEST),
            *gateway.calls(1, outcome=Outcome.RATE_LIMITED, status=429),
            *gateway.calls(1, path="/weather/v1/current/bergen"),
            *gateway.calls(1, at=noon + HOUR, path="/weather/v1/current/bergen", replayed="true"),
        )
        await gateway.ship(
            [
                billed.line() | {"bi": 10, "bo": 2**40, "lp": 7},
                # never sent to the upstream: no time
                unanswered.line() | {"bi": 100, "bo": 5, "lp": -1},
                failed.line() | {"bi": 1000, "bo": 1000, "lp": 1000, "st": 502},
                *(call.line() | {"bi": 1000, "bo": 1000, "lp": 1000} for call in (tested, refused)),
                first.line() | {"bi": 1, "bo": 1, "lp": 1},
                again.line() | {"bi": 1000, "bo": 1000, "lp": 1000},
                # a dimension of that name (an operator's own meter may report one) is not what is meant
                *(
                    {**call.line(), "bi": 0, "bo": 0, "lp": 0, "u": {"bytes_out": "9"}}
                    for call in gateway.calls(1)
                ),
            ]
        )
        await collect()
        await aggregate()
        async with sessions() as session:
            (found,) = await billable_units(session, subscription_id=subscription, start=noon, end=noon + DAY)
            (figures,) = await usage_summary(session, start=noon, end=noon + DAY, group_by=[GroupBy.PRODUCT])
        assert found.units == {"requests": 4, "bytes_in": 111, "bytes_out": 2**40 + 6, "upstream_ms": 8}
        assert (figures.upstream_ms_sum, figures.replayed_calls) == (4008, 1)

    async def test_events_that_applications_report_are_no_calls(self, sessions, noon):
        events = {"calls": 3, "dimensions": {"jobs": 7}, "billable_dimensions": {"jobs": 7}, "outcome": "reported"}
        calls = {"calls": 2, "dimensions": {"jobs": 1}, "billable_dimensions": {}, "outcome": "served"}
        zeros = ("units", "billable_calls", "billable_units", "bytes_in", "bytes_out")
        async with sessions() as session, session.begin():
            for row in (events, calls):
                session.add(
                    UsageHourly(
                        account_id="acc_1", hour=noon, phase_id="", product="weather", mode="live", key_id="",
                        endpoint="", status=0, latency_ms_sum=0, gateway_ms_sum=0, revision=1,
                        **dict.fromkeys(zeros, 0), **row,
                    )
                )  # fmt: skip
        async with sessions() as session:
            (figures,) = await usage_summary(session, start=noon, end=noon + HOUR, group_by=[GroupBy.PRODUCT])
        assert (figures.calls, figures.reported_events) == (2, 3)
        assert (figures.dimensions, figures.billable_dimensions) == ({"jobs": 8}, {"jobs": 7})

    def test_measured_meters_are_those_of_the_catalog(self):
        assert set(queries.MEASURED_METERS) == MEASURED_METERS

    async def test_of_a_subscription_without_usage_are_none(self, sessions, catalog, noon):
        await catalog.account()
        await catalog.product()
        version = await catalog.plan_version()
        subscription = await catalog.subscription(("ph_1", version, LONG_AGO, None))
        async with sessions() as session:
            found = await billable_units(session, subscription_id=subscription, start=noon, end=noon + DAY)
            assert await billable_units(session, subscription_id="sub_none", start=noon, end=noon + DAY) == []
        assert [(phase.calls, phase.units) for phase in found] == [(0, {"requests": 0, **measured(0)})]
