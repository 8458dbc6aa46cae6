"""Moving many subscriptions: who is moved when, who is not and why."""

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.operations import set_spend_cap
from control_plane.billing.plan_moves.candidates import MoveScope
from control_plane.billing.plan_moves.model import MoveTime, NobodyToMoveError, NoticeTooShortError
from control_plane.billing.plan_moves.queries import items_page, move_report, preview_move
from control_plane.billing.plan_moves.worker import PlanMovesConfig, move_once
from control_plane.billing.queries import preview_invoice
from control_plane.catalog.model import PriceTerms
from control_plane.subscriptions.operations import cancel, change_plan
from control_plane.subscriptions.own_terms import override_limits
from tests.control_plane.billing.plan_moves.moving import (
    AT_DATE,
    AT_PERIOD_END,
    DAY,
    DEC_1,
    DEC_10,
    JAN_1,
    NOV_1,
    NOW,
    OLD,
    SCOPE,
    customers,
    flat,
    old_and_new,
    outcome,
    schedule,
    usage,
    versions_of,
    work,
)
from tests.control_plane.builders import (
    ACTOR,
    a_new_version,
    a_published_plan,
)


class TestPreview:
    async def test_says_who_would_pay_what(self, session: AsyncSession):
        (first, second) = await old_and_new(session, 2)
        session.add(usage(second, 10_000, hour=NOV_1 + DAY))
        await session.flush()
        found = await preview_move(session, scope=SCOPE, when=AT_PERIOD_END, now=NOW)
        costs = {
            one.subscription_id: (one.cost.month_before_minor, one.cost.month_after_minor)
            for one in found.candidates
        }
        # 49.00 + 10,000 x 0.01 before, 59.00 + 10,000 x 0.005 after
        assert costs == {first.id: (49_00, 59_00), second.id: (149_00, 109_00)}
        assert [one.subscription_id for one in found.candidates] == [second.id, first.id]
        total = found.totals["USD"]
        assert (total.recurring_before_minor, total.recurring_after_minor) == (98_00, 118_00)
        assert total.difference_minor == -30_00
        assert {one.effective_at for one in found.candidates} == {JAN_1}

    async def test_says_who_cannot_be_moved_and_why(self, session: AsyncSession):
        both = {"prices": (*OLD["prices"], *(_in_euro(price) for price in OLD["prices"]))}
        await a_published_plan(session, now=NOV_1, **both)
        await a_published_plan(session, now=NOV_1, code="growth", position=1, prices=(flat("199.00"),))
        ending, changing, capped, moved = await customers(session, 4)
        (euro,) = await customers(session, currency="EUR")
        await a_new_version(session, now=NOV_1, prices=(flat("99.00"),))
        await cancel(session, subscription_id=ending.id, at="period_end", actor=ACTOR, now=NOW)
        await change_plan(
            session, subscription_id=changing.id, plan_code="growth", effective_at=DEC_1, actor=ACTOR, now=NOW
        )
        await set_spend_cap(session, subscription_id=capped.id, amount="80.00", actor=ACTOR, now=NOW)
        found = await preview_move(session, scope=SCOPE, when=AT_DATE, now=NOW)
        reasons = {one.subscription_id: one.cannot and one.cannot.code for one in found.candidates}
        assert reasons == {
            ending.id: "subscription_ending",
            changing.id: "change_planned",
            capped.id: "spend_cap_below_fixed_charges",
            euro.id: "currency_differs",
            moved.id: None,
        }
        assert found.movable == 1

    async def test_says_who_waits_for_another_move(self, session: AsyncSession, sessions):
        await old_and_new(session, 2)
        await schedule(session)
        await move_once(sessions, config=PlanMovesConfig(at_once=1), now=NOW)  # one is planned, one waits
        found = await preview_move(session, scope=SCOPE, when=AT_PERIOD_END, now=NOW)
        assert [one.cannot.code for one in found.candidates] == ["in_another_move"] * 2
        assert (found.movable, found.totals) == (0, {})

    async def test_names_the_setup_fee_of_who_has_paid_none(self, session: AsyncSession):
        fee = PriceTerms(model="setup_fee", meter=None, params={"amount": "20.00"})
        await a_published_plan(session, now=NOV_1, prices=(flat("9.00"), fee))
        (paid,) = await customers(session)
        await a_new_version(session, now=NOV_1, prices=(flat("9.00"),))
        (unpaid,) = await customers(session)
        await a_new_version(session, now=NOV_1, prices=(flat("9.00"), fee))
        found = await preview_move(session, scope=SCOPE, when=AT_DATE, now=NOW)
        fees = {one.subscription_id: one.setup_fee_minor for one in found.candidates}
        assert fees == {paid.id: 0, unpaid.id: 20_00}
        for one in (paid, unpaid):
            of = {"subscription_id": one.id, "plan_code": "starter", "actor": ACTOR, "now": NOW}
            await change_plan(session, **of, effective_at=DEC_10)
            preview = await preview_invoice(
                session, account_id=one.account_id, product_code="weather", now=DEC_10, period_start=DEC_10
            )
            charged = [line.line.amount_minor for line in preview.lines if line.kind == "setup_fee"]
            assert sum(charged) == fees[one.id]

    async def test_reckons_with_quotas_of_their_own(self, session: AsyncSession):
        prices = (PriceTerms(model="overage", meter="requests", params={"included": 100, "unit_amount": "0.01"}),)
        await a_published_plan(session, now=NOV_1, quota_units=100, prices=prices)
        (one,) = await customers(session)
        await override_limits(session, subscription_id=one.id, quota_units=9_000, actor=ACTOR, now=NOV_1)
        await a_new_version(session, now=NOV_1, quota_units=100, prices=(flat("5.00"), *prices))
        session.add(usage(one, 10_000, hour=NOV_1 + DAY))
        await session.flush()
        (found,) = (await preview_move(session, scope=SCOPE, when=AT_PERIOD_END, now=NOW)).candidates
        # 1,000 above the 9,000 that invoices include, in place of 9,900 above the plan's 100
        assert (found.cost.month_before_minor, found.cost.month_after_minor) == (10_00, 15_00)

    async def test_takes_only_the_versions_asked_for(self, session: AsyncSession):
        (first,) = await old_and_new(session)
        (second,) = await customers(session)
        await a_new_version(session, now=NOV_1, prices=(flat("69.00"),))
        for versions, expected in (((), {first.id, second.id}), ((1,), {first.id}), ((2,), {second.id})):
            scope = MoveScope(from_plan="starter", from_versions=versions, to_plan="starter")
            found = await preview_move(session, scope=scope, when=AT_DATE, now=NOW)
            assert {one.subscription_id for one in found.candidates} == expected


def _in_euro(price: PriceTerms) -> PriceTerms:
    return PriceTerms(model=price.model, meter=price.meter, params=price.params, currency="EUR")


class TestMove:
    async def test_moves_each_at_its_period_end(self, session: AsyncSession, sessions):
        found = await old_and_new(session, 3)
        old = found[0].phases[0].plan_version_id
        move_id = await schedule(session)
        await work(sessions, now=NOW)
        report = await move_report(session, move_id)
        assert (report.counts, report.move.status) == ({"planned": 3}, "scheduled")
        for one in found:
            versions = await versions_of(session, one)
            assert versions == [(old, NOV_1), (report.move.plan_version_id, JAN_1)]
        await work(sessions, now=JAN_1 - DAY)
        assert (await move_report(session, move_id)).counts == {"planned": 3}
        await work(sessions, now=JAN_1)
        session.expunge_all()
        report = await move_report(session, move_id)
        assert (report.counts, report.move.status, report.move.finished_at) == ({"moved": 3}, "done", JAN_1)

    async def test_moves_all_at_a_date(self, session: AsyncSession, sessions):
        (one,) = await old_and_new(session)
        await schedule(session, when=AT_DATE)
        await work(sessions, now=NOW)
        assert (await versions_of(session, one))[-1][1] == DEC_10

    async def test_notices_say_who_must_be_told_by_when(self, session: AsyncSession):
        (one,) = await old_and_new(session)
        move_id = await schedule(session, message="Faster, for a little more.")
        ((item, name),) = (await items_page(session, move_id, status=None, cursor=None, limit=5)).items
        assert (item.tell_by, item.told_at, name) == (JAN_1 - 30 * DAY, None, "Ada")
        assert item.notice == {
            "account_name": "Ada",
            "from_plan": "starter",
            "from_version": 1,
            "to_plan": "starter",
            "to_plan_name": "Starter",
            "to_version": 2,
            "effective_at": JAN_1.isoformat(),
            "currency": "USD",
            "recurring_before_minor": 49_00,
            "recurring_after_minor": 59_00,
            "setup_fee_minor": 0,
            "message": "Faster, for a little more.",
        }
        report = await move_report(session, move_id)
        assert (report.to_tell, report.tell_from) == (1, JAN_1 - 30 * DAY)
        assert item.subscription_id == one.id

    async def test_refuses_a_notice_that_is_too_short(self, session: AsyncSession):
        await old_and_new(session)
        with pytest.raises(NoticeTooShortError, match="2026-12-05 10:30"):
            await schedule(session, when=MoveTime(timing="period_end", at=DEC_1, notice_days=30))
        assert await schedule(session, when=MoveTime(timing="period_end", at=DEC_1, notice_days=25))

    async def test_refuses_to_move_nobody(self, session: AsyncSession):
        (one,) = await old_and_new(session)
        await cancel(session, subscription_id=one.id, at="period_end", actor=ACTOR, now=NOW)
        with pytest.raises(NobodyToMoveError):
            await schedule(session)

    async def test_who_changes_the_plan_meanwhile_is_left_alone(self, session: AsyncSession, sessions):
        before, after = await old_and_new(session, 2)
        await a_published_plan(session, now=NOV_1, code="growth", position=1, prices=(flat("199.00"),))
        move_id = await schedule(session)
        await change_plan(session, subscription_id=before.id, plan_code="growth", actor=ACTOR, now=NOW)
        await session.commit()
        await work(sessions, now=NOW)
        await change_plan(session, subscription_id=after.id, plan_code="growth", actor=ACTOR, now=NOW + DAY)
        await session.commit()
        await work(sessions, now=JAN_1)
        assert await outcome(session, move_id) == {
            before.id: ("skipped", "changed_since"),
            after.id: ("skipped", "changed_since"),
        }
        assert len(await versions_of(session, after)) == 2

    async def test_a_spend_cap_set_meanwhile_is_kept(self, session: AsyncSession, sessions):
        (one,) = await old_and_new(session)
        move_id = await schedule(session)
        await set_spend_cap(session, subscription_id=one.id, amount="50.00", actor=ACTOR, now=NOW)
        await session.commit()
        await work(sessions, now=NOW)
        assert (await outcome(session, move_id))[one.id] == ("skipped", "spend_cap_below_fixed_charges")
        assert len(await versions_of(session, one)) == 1

    async def test_a_subscription_waits_for_one_move_only(self, session: AsyncSession):
        (one, _) = await old_and_new(session, 2)
        await schedule(session, exclude={one.id: "asked to stay"})
        second = await schedule(session)
        statuses = sorted((await outcome(session, second)).values())
        assert statuses == [("skipped", "in_another_move"), ("waiting", "")]
