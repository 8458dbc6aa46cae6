"""Time begins planned phases and ends cancelled subscriptions, once, whoever looks; changed products are told."""

import asyncio
from datetime import timedelta

from sqlalchemy import func, select

from control_plane.accounts.tables import Account
from control_plane.foundation.audit import AuditRow
from control_plane.subscriptions.advance import advance
from control_plane.subscriptions.model import Advanced
from control_plane.subscriptions.operations import cancel, change_plan
from control_plane.subscriptions.tables import Subscription
from tests.control_plane.builders import (
    ACTOR,
    a_new_version,
    a_published_plan,
    a_subscription,
    an_account,
    audit_of,
    outbox_of,
)

DAY = timedelta(days=1)
NOTHING = Advanced(0, 0, 0)


async def subscribed(session, now, count=1):
    await a_published_plan(session, now=now, code="starter")
    await a_published_plan(session, now=now, code="growth", position=1)
    accounts = [await an_account(session, now=now) for _ in range(count)]
    subscriptions = [await a_subscription(session, account, now=now) for account in accounts]
    await advance(session, now=now)  # the catalogue's own news
    for account in accounts:
        await session.refresh(account)
    return accounts, subscriptions


class TestAdvance:
    async def test_a_planned_phase_is_told_when_it_begins(self, session, now):
        (account,), (subscription,) = await subscribed(session, now)
        await change_plan(
            session,
            subscription_id=subscription.id,
            plan_code="growth",
            effective_at=now + DAY,
            actor=ACTOR,
            now=now,
        )
        version = account.gateway_version
        assert await advance(session, now=now + DAY - timedelta(milliseconds=1)) == NOTHING
        assert await advance(session, now=now + DAY) == Advanced(0, 1, 0)
        await session.refresh(account)
        assert account.gateway_version == version + 1
        assert (await outbox_of(session, "account.changed"))[-1] == account.id
        assert await advance(session, now=now + DAY) == NOTHING

    async def test_a_cancelled_subscription_ends_with_its_period(self, session, now):
        (account,), (subscription,) = await subscribed(session, now)
        await cancel(session, subscription_id=subscription.id, at="period_end", actor=ACTOR, now=now)
        version, end = account.gateway_version, subscription.ends_at
        assert await advance(session, now=end - timedelta(milliseconds=1)) == NOTHING
        assert await advance(session, now=end) == Advanced(0, 0, 1)
        await session.refresh(account)
        assert (subscription.status, account.gateway_version) == ("ended", version + 1)
        row = (await audit_of(session, subscription.id))[-1]
        assert (row.actor, row.action) == ("system", "subscription.ended")
        assert await advance(session, now=end + DAY) == NOTHING

    async def test_subscribers_of_a_changed_product_are_told_once(self, session, now):
        (account, other), (_, gone) = await subscribed(session, now, count=2)
        await cancel(session, subscription_id=gone.id, at="now", actor=ACTOR, now=now + DAY)
        version, other_version = account.gateway_version, other.gateway_version
        await a_new_version(session, code="growth", now=now, quota_units=5)
        await a_new_version(session, code="growth", now=now, quota_units=6)
        assert await advance(session, now=now + DAY) == Advanced(1, 0, 0)
        await session.refresh(account)
        await session.refresh(other)
        assert (account.gateway_version, other.gateway_version) == (version + 1, other_version)
        assert await outbox_of(session, "product.changed") == []

    async def test_many_workers_do_everything_once_while_plans_change(self, sessions, session, now):
        accounts, subscriptions = await subscribed(session, now, count=12)
        for number, subscription in enumerate(subscriptions):
            options = {"subscription_id": subscription.id, "actor": ACTOR, "now": now}
            if number % 2:
                await change_plan(session, plan_code="growth", effective_at=now + DAY, **options)
            else:
                await cancel(session, at="period_end", **options)
        await a_new_version(session, code="growth", now=now, quota_units=5)
        await session.commit()
        later = now + 40 * DAY

        async def work():
            total = [0, 0]
            for _ in range(20):
                async with sessions() as own, own.begin():
                    done = await advance(own, now=later, limit=3)
                if done == NOTHING:
                    break
                total[0] += done.phases_begun
                total[1] += done.subscriptions_ended
            return total

        async def disturb(subscription):
            async with sessions() as own, own.begin():
                await change_plan(
                    own, subscription_id=subscription.id, plan_code="starter", actor=ACTOR, now=later
                )

        results = await asyncio.gather(*(work() for _ in range(3)), *(disturb(s) for s in subscriptions[1::2]))
        totals = [sum(column) for column in zip(*results[:3], strict=True)]
        assert totals[0] <= 6
        assert totals[1] == 6
        async with sessions() as check:
            ended = await check.scalar(
                select(func.count()).select_from(AuditRow).where(AuditRow.action == "subscription.ended")
            )
            assert ended == 6
            statuses = (await check.scalars(select(Subscription.status))).all()
            assert sorted(statuses) == ["active"] * 6 + ["ended"] * 6
            assert await advance(check, now=later) == NOTHING
            versions = await check.scalars(select(Account.gateway_version).order_by(Account.id))
            assert min(versions) >= accounts[0].gateway_version
