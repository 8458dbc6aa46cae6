"""Customers, their usage and the closing of their periods, in short."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.billing.balance.entries import NewEntry
from control_plane.billing.balance.operations import add_to_balance
from control_plane.billing.invoices.closing import ClosingConfig, ClosingResult
from control_plane.billing.invoices.finalising import InvoiceTerms
from control_plane.billing.invoices.queries import invoice as whole_invoice
from control_plane.billing.invoices.tables import Invoice
from control_plane.billing.invoices.worker import close_all
from control_plane.billing.model import InvoicePreview
from control_plane.billing.profiles.model import Seller
from control_plane.billing.queries import preview_invoice
from control_plane.catalog.model import PriceTerms, ProductFacts
from control_plane.catalog.operations import create_api_product
from control_plane.catalog.tables import ApiProduct
from control_plane.foundation.clock import floor_hour
from control_plane.subscriptions.add_ons import add_on
from control_plane.subscriptions.advance import advance
from control_plane.subscriptions.operations import cancel, change_plan
from control_plane.subscriptions.statuses import change_status
from control_plane.subscriptions.tables import Subscription
from control_plane.subscriptions.timelines import timeline
from control_plane.usage.rollups.sealing import SealingConfig, seal_hours
from control_plane.usage.tables import UsageHour
from tests.control_plane.builders import (
    ACTOR,
    a_published_plan,
    a_subscription,
    an_account,
    an_hour_of_use,
)

JAN_1 = datetime(2026, 1, 1, tzinfo=UTC)
FEB_1 = datetime(2026, 2, 1, tzinfo=UTC)
MAR_1 = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
WEATHER = ProductFacts(
    code="weather", name="Weather", service="weather", routes=("weather",), unit_headers={"cents": "x-cents"}
)
CONFIG = ClosingConfig(terms=InvoiceTerms(seller=Seller(name="Weather Ltd", country="DE")), batch=50)
SEALING = SealingConfig(hours_per_pass=10_000)


def flat(amount: str, **more: Any) -> PriceTerms:
    return PriceTerms(model="flat", meter=None, params={"amount": amount}, **more)


def overage(unit_amount: str, included: int, meter: str = "requests", **more: Any) -> PriceTerms:
    params = {"included": included, "unit_amount": unit_amount}
    return PriceTerms(model="overage", meter=meter, params=params, **more)


def per_unit(unit_amount: str, meter: str = "requests", **more: Any) -> PriceTerms:
    return PriceTerms(model="per_unit", meter=meter, params={"unit_amount": unit_amount}, **more)


def commitment(amount: str, counts: str = "usage") -> PriceTerms:
    return PriceTerms(model="commitment", meter=None, params={"amount": amount, "counts": counts})


def setup_fee(amount: str) -> PriceTerms:
    return PriceTerms(model="setup_fee", meter=None, params={"amount": amount})


STARTER = {"quota_units": 50_000, "prices": (flat("49.00"), overage("0.0015", 50_000))}


def priced(model: str, meter: str = "requests", **params: Any) -> PriceTerms:
    return PriceTerms(model=model, meter=meter, params=params)


GROWTH = {"quota_units": 500_000, "prices": (flat("199.00"), overage("0.0006", 500_000))}


@dataclass
class Billing:
    """A world with plans, customers and a clock that only the test moves."""

    sessions: async_sessionmaker[AsyncSession]
    config: ClosingConfig = CONFIG

    async def plan(self, code: str = "starter", *, at: datetime = JAN_1 - DAY, **terms: Any) -> None:
        async with self.sessions() as session, session.begin():
            if await session.scalar(select(ApiProduct.id)) is None:
                await create_api_product(session, product=WEATHER, actor=ACTOR, now=at)
            await a_published_plan(session, now=at, code=code, **(terms or STARTER))

    async def customer(
        self, plan: str = "starter", *, at: datetime = JAN_1, currency: str = "USD", **options: Any
    ) -> Subscription:
        async with self.sessions() as session, session.begin():
            account = await an_account(session, now=at, currency=currency)
            return await a_subscription(session, account, now=at, plan=plan, **options)

    async def change_plan(self, subscription: Subscription, plan: str, *, now: datetime) -> None:
        async with self.sessions() as session, session.begin():
            await change_plan(session, subscription_id=subscription.id, plan_code=plan, actor=ACTOR, now=now)

    async def add_on(self, subscription: Subscription, code: str, *, quantity: int = 1, now: datetime) -> None:
        async with self.sessions() as session, session.begin():
            await add_on(
                session,
                subscription_id=subscription.id,
                add_on_code=code,
                quantity=quantity,
                actor=ACTOR,
                now=now,
            )

    async def set_status(self, subscription: Subscription, status: str, *, now: datetime) -> None:
        async with self.sessions() as session, session.begin():
            await change_status(session, subscription_id=subscription.id, status=status, actor=ACTOR, now=now)

    async def give_balance(self, subscription: Subscription, amount_minor: int, *, now: datetime) -> None:
        entry = NewEntry(
            account_id=subscription.account_id,
            currency="USD",
            kind="adjustment",
            amount_minor=amount_minor,
            author=ACTOR,
            reason="goodwill",
        )
        async with self.sessions() as session, session.begin():
            await add_to_balance(session, entry, now=now)

    async def preview(self, subscription: Subscription, *, now: datetime, **options: Any) -> InvoicePreview:
        async with self.sessions() as session:
            return await preview_invoice(
                session, account_id=subscription.account_id, product_code="weather", now=now, **options
            )

    async def cancel(self, subscription: Subscription, *, now: datetime, **options: Any) -> None:
        wanted = {"at": "now", **options}
        async with self.sessions() as session, session.begin():
            await cancel(session, subscription_id=subscription.id, **wanted, actor=ACTOR, now=now)

    async def use(
        self,
        subscription: Subscription,
        units: int,
        *,
        at: datetime,
        known_at: datetime | None = None,
        **more: Any,
    ) -> None:
        """Count units in an hour, as the aggregator writes it down; sealed with the next `seal`."""
        hour = floor_hour(at)
        known_at = known_at or hour + 2 * HOUR
        async with self.sessions() as session, session.begin():
            phase_id = await phase_in_force(session, subscription.id, at)
            revision = await self._touch(session, subscription.account_id, hour, known_at)
            values: dict[str, Any] = {"billable_dimensions": {}} | more
            session.add(
                an_hour_of_use(
                    subscription,
                    units,
                    hour=hour,
                    phase_id=phase_id,
                    endpoint=f"GET /v1/{revision}",
                    dimensions=values["billable_dimensions"],
                    revision=revision,
                    **values,
                )
            )

    async def _touch(self, session: AsyncSession, account_id: str, hour: datetime, known_at: datetime) -> int:
        row = await session.get(UsageHour, (account_id, hour), with_for_update=True)
        if row is None:
            row = UsageHour(account_id=account_id, hour=hour, revision=0)
            session.add(row)
        row.revision += 1
        row.aggregated_at, row.sealed_at = known_at, None
        return row.revision

    async def seal(self, now: datetime) -> None:
        async with self.sessions() as session, session.begin():
            await seal_hours(session, config=SEALING, now=now)

    async def close(self, now: datetime, *, sealed: bool = True) -> ClosingResult:
        """Let time come to `now`: subscriptions advance, hours are sealed, and what is due is billed."""
        async with self.sessions() as session, session.begin():
            await advance(session, now=now)
        if sealed:
            await self.seal(now)
        return await close_all(self.sessions, config=self.config, now=now)

    async def invoices(self, subscription: Subscription, *, drafts: bool = False) -> list[Invoice]:
        """Invoices of a subscription with their lines, in the order in which they became final."""
        async with self.sessions() as session:
            statement = (
                select(Invoice.id)
                .where(Invoice.subscription_id == subscription.id)
                .order_by(Invoice.finalised_at.nulls_last(), Invoice.number)
            )
            if not drafts:
                statement = statement.where(Invoice.status != "draft")
            return [await whole_invoice(session, invoice_id) for invoice_id in await session.scalars(statement)]


async def phase_in_force(session: AsyncSession, subscription_id: str, at: datetime) -> str:
    phase = (await timeline(session, subscription_id)).phase_at(at)
    assert phase is not None
    return phase.id


def as_table(invoices: Sequence[Invoice]) -> list[tuple[str, list[tuple[str, int]]]]:
    return [(one.reason, [(line.description, line.amount_minor) for line in one.lines]) for one in invoices]
