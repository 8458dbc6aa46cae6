"""Trials cost nothing, are given once, and end as the plan says, early or later."""

from datetime import timedelta

import pytest

from control_plane.foundation.errors import ValidationFailedError
from control_plane.subscriptions.advance import advance
from control_plane.subscriptions.many import subscribe_accounts
from control_plane.subscriptions.model import TransitionRefusedError
from control_plane.subscriptions.offers import version_on_sale
from control_plane.subscriptions.operations import cancel, change_plan, withdraw_cancellation
from control_plane.subscriptions.plan_changes import change
from control_plane.subscriptions.queries import current_and_next_period
from control_plane.subscriptions.statuses import change_status, pause
from control_plane.subscriptions.timelines import timeline
from control_plane.subscriptions.trials import NotTrialingError, end_trial, extend_trial
from tests.control_plane.builders import ACTOR, a_published_plan, a_subscription, an_account, audit_of, outbox_of
from tests.control_plane.subscriptions.showing import at, flat, phases_of

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
# two weeks after `now`, at the next full hour
END = at("2026-03-31T11:00")


@pytest.fixture
async def account(session, now):
    await a_published_plan(session, now=now, code="starter", trial_days=14)
    await a_published_plan(session, now=now, code="growth", position=1, prices=(flat("199"),))
    await a_published_plan(session, now=now, code="short", position=2, trial_days=14, after_trial="cancel")
    return await an_account(session, now=now)


@pytest.fixture
async def subscription(session, account, now):
    return await a_subscription(session, account, now=now)


def of(subscription, now):
    return {"subscription_id": subscription.id, "actor": ACTOR, "now": now}


class TestATrial:
    async def test_runs_to_a_full_hour_where_billing_begins(self, session, subscription, now):
        assert (subscription.status, subscription.trial_ends_at) == ("trialing", END)
        assert (subscription.anchor_at, subscription.ends_at) == (END, None)
        assert await phases_of(session, subscription) == [
            ("starter", "trial", now, END),
            ("starter", "paid", END, None),
        ]
        assert current_and_next_period(subscription, END)[0].start == END

    async def test_goes_on_paid_when_its_time_comes(self, session, account, subscription, now):
        await advance(session, now=END - timedelta(milliseconds=1))
        await session.refresh(account)
        version, told = account.gateway_version, len(await outbox_of(session, "subscription.changed"))
        done = await advance(session, now=END)
        assert (done.phases_begun, done.subscriptions_ended) == (1, 0)
        await session.refresh(account)
        assert (subscription.status, account.gateway_version) == ("active", version + 1)
        assert (await outbox_of(session, "subscription.changed"))[told:] == [subscription.id]
        assert [row.action for row in await audit_of(session, subscription.id)][-1] == "subscription.trial_ended"
        assert (await advance(session, now=END)).phases_begun == 0

    async def test_ends_the_subscription_where_the_plan_says_so(self, session, account, now):
        subscription = await a_subscription(session, account, now=now, plan="short")
        assert (subscription.ends_at, subscription.canceled_at) == (END, None)
        assert await phases_of(session, subscription) == [("short", "trial", now, END)]
        assert (await advance(session, now=END)).subscriptions_ended == 1
        assert subscription.status == "ended"

    async def test_is_over_for_operations_at_once(self, session, subscription, now):
        # before `advance` has seen it
        await pause(session, **of(subscription, END))
        assert subscription.status == "paused"
        assert await phases_of(session, subscription) == [
            ("starter", "trial", now, END),
            ("starter", "paused", END, None),
        ]
        with pytest.raises(NotTrialingError):
            await end_trial(session, **of(subscription, END + HOUR))

    async def test_that_ends_with_the_hour_is_not_lengthened(self, session, account, now):
        subscription = await a_subscription(session, account, now=END - 14 * DAY)
        assert subscription.trial_ends_at == END

    async def test_costs_nothing_so_nothing_is_overdue_or_pauses(self, session, subscription, now):
        for status, words in (("past_due", "nothing can be overdue"), ("paused", "let it run, end it or cancel")):
            with pytest.raises(TransitionRefusedError, match=words) as refused:
                await change_status(session, status=status, **of(subscription, now + DAY))
            assert refused.value.code == "subscription_transition_refused"


class TestWhoGetsOne:
    async def test_once_for_each_account_and_product(self, session, account, subscription, now):
        await cancel(session, at="now", **of(subscription, now + DAY))
        second = await a_subscription(session, account, now=now + 2 * DAY)
        assert (second.status, second.trial_ends_at) == ("active", None)

    async def test_a_word_gives_it_again_or_leaves_it_out(self, session, account, subscription, now):
        await cancel(session, at="now", **of(subscription, now))
        again = await a_subscription(session, account, now=now, trial=True)
        assert again.status == "trialing"
        await cancel(session, at="now", **of(again, now))
        other = await an_account(session, now=now)
        assert (await a_subscription(session, other, now=now, trial=False)).status == "active"

    async def test_a_plan_without_one_has_none_to_give(self, session, account, now):
        with pytest.raises(ValidationFailedError, match="growth has no trial") as refused:
            await a_subscription(session, account, now=now, plan="growth", trial=True)
        assert refused.value.field == "trial"

    @pytest.mark.parametrize(("field", "value"), [("anchor_at", END), ("anchor_day", 1)])
    async def test_its_end_is_the_anchor_and_no_other(self, session, account, now, field, value):
        with pytest.raises(ValidationFailedError, match="at whose end billing periods begin") as refused:
            await a_subscription(session, account, now=now, **{field: value})
        assert refused.value.field == field
        await a_subscription(session, account, now=now, trial=False, **{field: value})

    async def test_many_at_once_too_who_are_new(self, session, account, subscription, now):
        await cancel(session, at="now", **of(subscription, now))
        zoned = await an_account(session, now=now, time_zone="Europe/Berlin")
        version = await version_on_sale(session, "starter", allow_unlisted=False)
        made = await subscribe_accounts(session, [account.id, zoned.id], version=version, actor=ACTOR, now=now)
        assert (made[account.id].status, made[account.id].anchor_at) == (
            "active",
            now.replace(hour=10, minute=0, second=0, microsecond=0),
        )
        assert (made[zoned.id].status, made[zoned.id].anchor_at) == ("trialing", END)
        assert (made[zoned.id].time_zone, made[account.id].time_zone) == ("Europe/Berlin", "UTC")
        told = await outbox_of(session, "subscription.changed")
        assert {made[account.id].id, made[zoned.id].id} <= set(told)


class TestEndTrial:
    async def test_pays_from_this_hour_on(self, session, subscription, now):
        later = now + DAY
        await end_trial(session, **of(subscription, later))
        hour = at("2026-03-18T10:00")
        assert (subscription.status, subscription.anchor_at) == ("active", hour)
        # when the trial was over, not where the period begins that is paid
        assert subscription.trial_ends_at == later
        assert await phases_of(session, subscription) == [
            ("starter", "trial", now, later),
            ("starter", "paid", later, None),
        ]
        # the whole of the first period is paid, which began within this hour
        assert (await timeline(session, subscription.id)).phases[1].charged_from == hour
        with pytest.raises(NotTrialingError) as refused:
            await end_trial(session, **of(subscription, later))
        assert refused.value.code == "subscription_not_trialing"

    async def test_brings_the_change_that_was_planned_for_its_end(self, session, subscription, now):
        await change(session, plan_code="growth", at="period_end", **of(subscription, now))
        await end_trial(session, **of(subscription, now + DAY))
        assert await phases_of(session, subscription) == [
            ("starter", "trial", now, now + DAY),
            ("growth", "paid", now + DAY, None),
        ]

    async def test_also_where_it_was_to_end(self, session, account, now):
        subscription = await a_subscription(session, account, now=now, plan="short")
        await change_status(session, status="active", **of(subscription, now + DAY))
        assert (subscription.status, subscription.ends_at) == ("active", None)
        assert (await phases_of(session, subscription))[-1] == ("short", "paid", now + DAY, None)


class TestExtendTrial:
    async def test_moves_what_happens_at_its_end(self, session, account, subscription, now):
        await change(session, plan_code="growth", at="period_end", **of(subscription, now))
        later = END + 7 * DAY
        await extend_trial(session, ends_at=later, **of(subscription, now + DAY))
        assert (subscription.trial_ends_at, subscription.anchor_at) == (later, later)
        assert await phases_of(session, subscription) == [
            ("starter", "trial", now, later),
            ("growth", "paid", later, None),
        ]
        assert (await advance(session, now=END)).phases_begun == 0
        assert (await advance(session, now=later)).phases_begun == 1

    @pytest.mark.parametrize(
        ("planned", "extended", "begins"),
        [(20, 1, 20), (20, 30, 30), (-3, 7, -3)],
    )
    async def test_leaves_changes_for_other_moments(
        self, session, subscription, now, *, planned: int, extended: int, begins: int
    ):
        moment = END + planned * DAY
        await change_plan(session, plan_code="growth", effective_at=moment, **of(subscription, now))
        await extend_trial(session, ends_at=END + extended * DAY, **of(subscription, now + DAY))
        found = await phases_of(session, subscription)
        assert {start for code, _, start, _ in found if code == "starter"} <= {now, END + extended * DAY}
        assert min(start for code, _, start, _ in found if code == "growth") == END + begins * DAY
        assert [kind for _, kind, start, _ in found if start >= END + extended * DAY][-1] == "paid"
        assert all(kind == "trial" for _, kind, start, _ in found if start < END + extended * DAY)

    async def test_lets_one_that_ends_with_it_end_then(self, session, account, now):
        subscription = await a_subscription(session, account, now=now, plan="short")
        later = END + DAY
        await extend_trial(session, ends_at=later, **of(subscription, now))
        assert subscription.ends_at == later
        assert await phases_of(session, subscription) == [("short", "trial", now, later)]

    async def test_refuses_any_other_end(self, session, subscription, now):
        naive = (END + DAY).replace(tzinfo=None)
        for ends_at in (END, END - DAY, END + timedelta(minutes=30), naive, END + 800 * DAY):
            with pytest.raises(ValidationFailedError) as refused:
                await extend_trial(session, ends_at=ends_at, **of(subscription, now))
            assert refused.value.field == "ends_at"


class TestWithinATrial:
    async def test_a_change_of_plan_is_at_once_and_keeps_its_end(self, session, account, subscription, now):
        changed = await change(session, plan_code="growth", **of(subscription, now + DAY))
        assert changed.at == "now"
        assert await phases_of(session, subscription) == [
            ("starter", "trial", now, now + DAY),
            ("growth", "trial", now + DAY, END),
            ("growth", "paid", END, None),
        ]

    async def test_a_change_at_period_end_begins_with_the_paid_time(self, session, subscription, now):
        changed = await change(session, plan_code="growth", at="period_end", **of(subscription, now))
        assert changed.effective_at == END
        assert (await phases_of(session, subscription))[1] == ("growth", "paid", END, None)

    async def test_a_change_before_its_end_cuts_it_there(self, session, subscription, now):
        await change_plan(session, plan_code="growth", effective_at=now + 3 * DAY, **of(subscription, now))
        assert [phase[:2] for phase in await phases_of(session, subscription)] == [
            ("starter", "trial"),
            ("growth", "trial"),
            ("growth", "paid"),
        ]

    async def test_cancelling_at_period_end_is_at_its_end_and_can_be_taken_back(self, session, subscription, now):
        await cancel(session, at="period_end", **of(subscription, now + DAY))
        assert subscription.ends_at == END
        assert await phases_of(session, subscription) == [("starter", "trial", now, END)]
        await withdraw_cancellation(session, **of(subscription, now + 2 * DAY))
        assert await phases_of(session, subscription) == [
            ("starter", "trial", now, END),
            ("starter", "paid", END, None),
        ]
        await cancel(session, at="period_end", **of(subscription, now + 3 * DAY))
        assert (await advance(session, now=END)).subscriptions_ended == 1
        assert subscription.status == "ended"
