"""Timelines tell billing and gateways what ran when, of many subscriptions at once."""

from datetime import timedelta

import pytest
from sqlalchemy import event

from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from control_plane.foundation.period import BillingPeriod
from control_plane.subscriptions.operations import cancel, change_plan
from control_plane.subscriptions.own_terms import override_limits
from control_plane.subscriptions.timeline import PhaseKind, TimelinePhase, charged_from
from control_plane.subscriptions.timelines import timeline, timelines
from tests.control_plane.builders import ACTOR, a_published_plan, a_subscription, an_account
from tests.control_plane.subscriptions.showing import at, flat

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class TestTimelines:
    async def test_of_many_take_three_queries(self, session, engine, now):
        await a_published_plan(session, now=now)
        held = [await a_subscription(session, await an_account(session, now=now), now=now) for _ in range(3)]
        sent = []

        def note(*told):
            sent.append(told[2])

        event.listen(engine.sync_engine, "before_cursor_execute", note)
        found = await timelines(session, [one.id for one in held] + ["sub_unknown"])
        event.remove(engine.sync_engine, "before_cursor_execute", note)
        assert len(sent) == 3
        assert set(found) == {one.id for one in held}
        assert await timelines(session, []) == {}
        with pytest.raises(NotFoundError):
            await timeline(session, "sub_unknown")

    async def test_hold_what_billing_needs(self, session, now):
        await a_published_plan(session, now=now)
        await a_published_plan(session, now=now, code="growth", position=1, prices=(flat("199"),))
        account = await an_account(session, now=now, time_zone="Europe/Berlin")
        subscription = await a_subscription(session, account, now=now)
        options = {"subscription_id": subscription.id, "actor": ACTOR}
        await override_limits(session, quota_units=7, **options, now=now)
        await change_plan(session, plan_code="growth", **options, now=now + DAY)
        await cancel(session, at="now", unused_time="credited", **options, now=now + 2 * DAY)
        found = await timeline(session, subscription.id)
        assert (found.account_id, found.api_product_id) == (account.id, subscription.api_product_id)
        assert (found.status, found.unused_time, found.billed_by) == ("canceled", "credited", "own")
        assert (found.time_zone, found.interval, found.quota_override) == ("Europe/Berlin", "month", 7)
        assert (found.started_at, found.ends_at) == (now, now + 2 * DAY)
        assert [phase.charged_from for phase in found.phases] == [at("2026-03-17T10:00"), now + DAY]
        assert len(found.version_ids) == 2
        assert found.phase_at(now + DAY).plan_version_id == found.phases[1].plan_version_id
        assert found.phase_at(now + 2 * DAY) is None
        # Berlin puts its clock forward on 29 March
        assert found.period_at(now) == BillingPeriod(at("2026-03-17T10:00"), at("2026-04-17T09:00"))


class TestPhaseWithin:
    phase = TimelinePhase("ph", "pv", PhaseKind.PAID, at("2026-01-10"), at("2026-03-05"), at("2026-01-10"))

    @pytest.mark.parametrize(
        ("start", "end", "inside"),
        [
            ("2026-01-01", "2026-02-01", ("2026-01-10", "2026-02-01")),
            ("2026-02-01", "2026-03-01", ("2026-02-01", "2026-03-01")),
            ("2026-03-01", "2026-04-01", ("2026-03-01", "2026-03-05")),
            ("2026-01-01", "2026-01-10", None),
            ("2026-03-05", "2026-04-05", None),
        ],
    )
    def test_is_cut_to_the_period(self, start, end, inside):
        part = self.phase.within(BillingPeriod(at(start), at(end)))
        assert (part and (part.starts_at, part.ends_at)) == (inside and (at(inside[0]), at(inside[1])))
        assert part is None or part.charged_from == part.starts_at

    def test_the_first_hour_of_the_first_period_is_charged_whole(self):
        anchor = at("2026-01-10T09:00")
        assert charged_from(anchor + HOUR / 2, anchor_at=anchor, first_paid=True) == anchor
        assert charged_from(anchor + HOUR / 2, anchor_at=anchor, first_paid=False) == anchor + HOUR / 2
        assert charged_from(anchor + HOUR, anchor_at=anchor, first_paid=True) == anchor + HOUR


class TestTheAccountsZone:
    async def test_sets_where_periods_begin(self, session, now):
        await a_published_plan(session, now=now)
        account = await an_account(session, now=now, time_zone="Asia/Kathmandu")
        subscription = await a_subscription(session, account, now=now, anchor_day=31)
        assert (subscription.time_zone, subscription.anchor_at) == ("Asia/Kathmandu", at("2026-01-30T18:00"))
        found = await timeline(session, subscription.id)
        # the first period has begun before: its fixed charges are those of the time that is left
        assert found.period_at(now) == BillingPeriod(at("2026-02-27T18:00"), at("2026-03-30T18:00"))
        assert found.phases[0].charged_from == now

    @pytest.mark.parametrize("day", [0, 32])
    async def test_has_months_of_31_days_at_most(self, session, now, day):
        await a_published_plan(session, now=now)
        with pytest.raises(ValidationFailedError) as refused:
            await a_subscription(session, await an_account(session, now=now), now=now, anchor_day=day)
        assert refused.value.field == "anchor_day"

    async def test_takes_a_day_or_a_moment(self, session, now):
        await a_published_plan(session, now=now)
        with pytest.raises(ValidationFailedError, match="either anchor_day or anchor_at"):
            await a_subscription(
                session, await an_account(session, now=now), now=now, anchor_day=1, anchor_at=at("2026-03-01")
            )
