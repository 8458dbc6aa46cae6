"""What is in use is archived, what nobody ever had can be deleted; what was published stays final."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from control_plane.billing.plan_impact import impact_of_terms
from control_plane.catalog import queries
from control_plane.catalog.model import PlanTerms, PriceTerms, ProductFacts
from control_plane.catalog.operations import RouteTakenError, archive_plan, create_api_product
from control_plane.catalog.price_list import ProductArchivedError, unarchive_plan
from control_plane.catalog.tables import ApiProduct, Plan, PlanVersion, Price
from control_plane.foundation.errors import NotFoundError
from control_plane.subscriptions.offers import PlanNotOnSaleError, version_on_sale
from control_plane.subscriptions.operations import cancel, subscribe
from control_plane.subscriptions.plan_removal import (
    PlanInUseError,
    ProductHasPlansError,
    ProductInUseError,
    archive_api_product,
    delete_api_product,
    delete_plan,
    unarchive_api_product,
)
from control_plane.subscriptions.tables import SubscriptionPhase
from tests.control_plane.builders import (
    ACTOR,
    FLAT_49,
    a_new_version,
    a_published_plan,
    a_subscription,
    an_account,
    an_api_product,
    outbox_of,
)

LOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

CODE_OF = {archive_api_product: "weather", archive_plan: "starter", delete_plan: "starter"}


def flat(amount: str, currency: str = "") -> PriceTerms:
    return PriceTerms(model="flat", meter=None, params={"amount": amount}, currency=currency)


class TestDeletePlan:
    async def test_takes_all_its_versions_where_nobody_ever_had_it(self, session, now):
        await a_published_plan(session, now=now)
        await a_new_version(session, now=now, quota_units=5)
        await delete_plan(session, code="starter", actor=ACTOR, now=now)
        await session.commit()
        for table in (Plan, PlanVersion, Price):
            assert await session.scalar(select(func.count()).select_from(table)) == 0
        with pytest.raises(NotFoundError):
            await queries.plan(session, "starter")

    async def test_refuses_one_that_a_subscription_has_or_had(self, session, now):
        await a_published_plan(session, now=now)
        account = await an_account(session, now=now)
        subscription = await a_subscription(session, account, now=now)
        with pytest.raises(PlanInUseError) as refused:
            await delete_plan(session, code="starter", actor=ACTOR, now=now)
        assert refused.value.code == "plan_in_use"
        assert refused.value.message == (
            "Plan starter cannot be deleted: 1 subscription on it now, 1 ever. "
            "Archive it: nobody new gets it, who has it keeps it."
        )
        later = now + timedelta(hours=1)
        await cancel(session, subscription_id=subscription.id, at="now", actor=ACTOR, now=later)
        with pytest.raises(PlanInUseError, match="0 subscriptions on it now, 1 ever"):
            await delete_plan(session, code="starter", actor=ACTOR, now=later)

    async def test_leaves_the_guard_of_other_plans_closed(self, session, now):
        await a_published_plan(session, now=now)
        other = await a_published_plan(session, now=now, code="growth", position=1)
        await delete_plan(session, code="starter", actor=ACTOR, now=now)
        with pytest.raises(IntegrityError, match="was published"):
            await session.execute(text("DELETE FROM prices WHERE plan_version_id = :id"), {"id": other.id})

    async def test_is_told_to_the_gateway(self, session, now):
        version = await a_published_plan(session, now=now)
        before = len(await outbox_of(session, "product.changed"))
        await delete_plan(session, code="starter", actor=ACTOR, now=now)
        assert len(await outbox_of(session, "product.changed")) == before + 1
        assert await queries.plan_versions(session, [version.id]) == {}


class TestApiProduct:
    async def test_is_archived_when_its_last_subscription_is_over(self, session, now):
        await a_published_plan(session, now=now)
        account = await an_account(session, now=now)
        subscription = await a_subscription(session, account, now=now)
        with pytest.raises(ProductInUseError, match="weather has 1 live subscription, and its routes"):
            await archive_api_product(session, code="weather", actor=ACTOR, now=now)
        await cancel(session, subscription_id=subscription.id, at="now", actor=ACTOR, now=now)
        await archive_api_product(session, code="weather", actor=ACTOR, now=now)
        with pytest.raises(PlanNotOnSaleError):
            await version_on_sale(session, "starter", allow_unlisted=True)
        assert await queries.api_products(session) == []

    async def test_gives_its_routes_to_another_and_cannot_come_back_then(self, session, now):
        await an_api_product(session, now=now)
        await archive_api_product(session, code="weather", actor=ACTOR, now=now)
        taker = ProductFacts(code="climate", name="Climate", service="weather", routes=("weather",))
        await create_api_product(session, product=taker, actor=ACTOR, now=now)
        with pytest.raises(RouteTakenError):
            await unarchive_api_product(session, code="weather", actor=ACTOR, now=now)
        await delete_api_product(session, code="climate", actor=ACTOR, now=now)
        row = await unarchive_api_product(session, code="weather", actor=ACTOR, now=now)
        assert row.archived_at is None

    async def test_is_deleted_without_plans_only(self, session, now):
        await a_published_plan(session, now=now)
        with pytest.raises(ProductHasPlansError, match="starter"):
            await delete_api_product(session, code="weather", actor=ACTOR, now=now)
        await delete_plan(session, code="starter", actor=ACTOR, now=now)
        await delete_api_product(session, code="weather", actor=ACTOR, now=now)
        assert await session.scalar(select(func.count()).select_from(ApiProduct)) == 0


class TestWhileSomebodySubscribes:
    """Whoever comes second finds what the first has done: no subscription to what is gone, and no broken call."""

    @pytest.fixture
    async def account_id(self, session, now):
        await a_published_plan(session, now=now)
        account = await an_account(session, now=now)
        await session.commit()
        return account.id

    @pytest.mark.parametrize("take_away", [archive_api_product, archive_plan, delete_plan])
    async def test_what_is_taken_away_is_not_sold(self, session, sessions, account_id, now, take_away):
        await take_away(session, code=CODE_OF[take_away], actor=ACTOR, now=now)
        selling = asyncio.create_task(sell(sessions, account_id, now))
        await lock_waited_for(sessions, selling)
        await session.commit()
        with pytest.raises(NotFoundError if take_away is delete_plan else PlanNotOnSaleError):
            await selling

    @pytest.mark.parametrize("take_away", [archive_api_product, delete_plan])
    async def test_what_is_sold_is_not_taken_away(self, session, sessions, account_id, now, take_away):
        async def take():
            async with sessions() as other, other.begin():
                await take_away(other, code=CODE_OF[take_away], actor=ACTOR, now=now)

        await subscribe(session, account_id=account_id, plan_code="starter", actor=ACTOR, now=now)
        taking = asyncio.create_task(take())
        await lock_waited_for(sessions, taking)
        await session.commit()
        with pytest.raises((ProductInUseError, PlanInUseError)):
            await taking


async def sell(sessions, account_id, now):
    async with sessions() as other, other.begin():
        await subscribe(other, account_id=account_id, plan_code="starter", actor=ACTOR, now=now)


async def lock_waited_for(sessions, task):
    async with asyncio.timeout(30), sessions() as watching:
        while not task.done() and not await watching.scalar(text(LOCKED)):
            await watching.rollback()  # a transaction sees the same activity until it ends
            await asyncio.sleep(0.02)


class TestUnarchivePlan:
    async def test_puts_it_on_sale_again(self, session, now):
        await a_published_plan(session, now=now, recommended=True)
        await archive_plan(session, code="starter", actor=ACTOR, now=now)
        await a_published_plan(session, now=now, code="growth", position=1, recommended=True)
        row = await unarchive_plan(session, code="starter", actor=ACTOR, now=now)
        assert (row.archived_at, row.recommended) == (None, False)
        assert (await version_on_sale(session, "starter", allow_unlisted=False)).plan.code == "starter"

    async def test_is_refused_while_its_product_is_archived(self, session, now):
        await a_published_plan(session, now=now)
        await archive_plan(session, code="starter", actor=ACTOR, now=now)
        await archive_api_product(session, code="weather", actor=ACTOR, now=now)
        with pytest.raises(ProductArchivedError):
            await unarchive_plan(session, code="starter", actor=ACTOR, now=now)


class TestImpactOfTerms:
    async def test_counts_subscriptions_and_what_recurs_by_version_and_currency(self, session, now):
        both = (FLAT_49, flat("45", "EUR"))
        first = await a_published_plan(session, now=now, prices=both)
        accounts = [
            await an_account(session, now=now, currency=currency) for currency in ("USD", "USD", "USD", "EUR")
        ]
        for account in accounts:
            await a_subscription(session, account, now=now)
        await a_new_version(session, now=now, prices=(flat("59"), flat("55", "EUR")))
        moved = await an_account(session, now=now)
        await a_subscription(session, moved, now=now)
        await session.execute(text("UPDATE subscription_phases SET kind = 'trial' WHERE id = :id"), {"id": (
            await session.scalar(select(func.min(SubscriptionPhase.id)).where(
                SubscriptionPhase.plan_version_id == first.id)))})  # fmt: skip
        new = PlanTerms(interval="year", currency="USD", prices=(flat("720"), flat("1")))
        (impact,) = await impact_of_terms(session, {"starter": new, "nobody": new}, now=now)
        assert impact.plan == "starter"
        fields = ("version", "currency", "subscriptions", "paying", "recurring_minor", "new_recurring_minor")
        assert [tuple(getattr(one, field) for field in fields) for one in impact.versions] == [
            (2, "USD", 1, 1, 5900, 6008),
            (1, "EUR", 1, 1, 4500, None),
            (1, "USD", 3, 2, 9800, 12017),
        ]
