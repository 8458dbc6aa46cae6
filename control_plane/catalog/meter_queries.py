"""Reading declared meters."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from control_plane.catalog.meters import Aggregation, MeteredEvents, MeterFacts, MeterFilters
from control_plane.catalog.tables import ApiProduct, Meter, Plan, PlanVersion, Price
from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.pagination import Page, decode_cursor, page_of


@dataclass(frozen=True, slots=True)
class KnownMeter:
    """A meter as usage counts it: what it is, and the id by which its values are kept."""

    id: str
    facts: MeterFacts


@dataclass(frozen=True, slots=True)
class MeterUse:
    """A plan version with a price on a meter. `status` is `published` or `superseded`."""

    plan: str
    version: int
    status: str
    model: str
    published_at: datetime | None


async def meter(session: AsyncSession, code: str) -> Meter:
    """Return a meter by its code with its API product, archived or not.

    Raises:
        NotFoundError: there is none.
    """
    statement = select(Meter).where(Meter.code == code).options(selectinload(Meter.api_product))
    found = (await session.scalars(statement)).one_or_none()
    if found is None:
        raise NotFoundError("meter", code)
    return found


async def meters(
    session: AsyncSession, *, product_codes: Collection[str] | None = None, archived: bool = False
) -> Sequence[Meter]:
    """Return meters by code with their API products; archived ones only when asked for."""
    statement = select(Meter).order_by(Meter.code).options(selectinload(Meter.api_product))
    if not archived:
        statement = statement.where(Meter.archived_at.is_(None))
    if product_codes is not None:
        statement = statement.join(Meter.api_product).where(ApiProduct.code.in_(product_codes))
    return (await session.scalars(statement)).all()


async def meters_page(
    session: AsyncSession, *, product_code: str | None, archived: bool, cursor: str | None, limit: int
) -> Page[Meter]:
    """Return a page of meters by code with their API products.

    Raises:
        ValidationFailedError: the cursor is not one of this list.
    """
    statement = select(Meter).order_by(Meter.code).limit(limit + 1).options(selectinload(Meter.api_product))
    if not archived:
        statement = statement.where(Meter.archived_at.is_(None))
    if product_code is not None:
        statement = statement.join(Meter.api_product).where(ApiProduct.code == product_code)
    if cursor is not None:
        (code,) = decode_cursor(cursor, str)
        statement = statement.where(Meter.code > code)
    rows = (await session.scalars(statement)).all()
    return page_of(rows, limit=limit, sort_values=lambda row: (row.code,))


async def codes_for_prices(session: AsyncSession, product_id: str) -> dict[str, Aggregation]:
    """Return the declared meters of an API product that a new price can count."""
    rows = await session.execute(
        select(Meter.code, Meter.aggregation).where(
            Meter.api_product_id == product_id, Meter.archived_at.is_(None)
        )
    )
    return {code: Aggregation(aggregation) for code, aggregation in rows}


async def counting_meters(session: AsyncSession) -> dict[str, list[KnownMeter]]:
    """Return, by product code, the meters that are counted: all but archived ones that no plan version prices."""
    priced = exists().where(
        Price.meter == Meter.code,
        Price.plan_version_id == PlanVersion.id,
        PlanVersion.plan_id == Plan.id,
        Plan.api_product_id == Meter.api_product_id,
    )
    statement = (
        select(Meter)
        .where(Meter.archived_at.is_(None) | priced)
        .order_by(Meter.id)
        .options(selectinload(Meter.api_product))
    )
    found: dict[str, list[KnownMeter]] = defaultdict(list)
    for row in await session.scalars(statement):
        facts = facts_of_meter(row)
        found[facts.api_product].append(KnownMeter(row.id, facts))
    return dict(found)


async def meters_of_versions(
    session: AsyncSession, plan_version_ids: Collection[str]
) -> dict[str, dict[str, Meter]]:
    """Return, by plan version and code, the declared meters that its prices name."""
    statement = (
        select(Price.plan_version_id, Meter)
        .join(PlanVersion, PlanVersion.id == Price.plan_version_id)
        .join(Plan, Plan.id == PlanVersion.plan_id)
        .join(Meter, (Meter.code == Price.meter) & (Meter.api_product_id == Plan.api_product_id))
        .where(Price.plan_version_id.in_(plan_version_ids))
    )
    found: dict[str, dict[str, Meter]] = defaultdict(dict)
    for version_id, row in await session.execute(statement):
        found[version_id][row.code] = row
    return dict(found)


async def uses_of_meter(session: AsyncSession, meter: Meter) -> list[MeterUse]:
    """Return the published plan versions, superseded ones too, that have a price on a meter; newest first."""
    statement = (
        select(Plan.code, PlanVersion.version, PlanVersion.status, Price.model, PlanVersion.published_at)
        .join(PlanVersion, PlanVersion.plan_id == Plan.id)
        .join(Price, Price.plan_version_id == PlanVersion.id)
        .where(
            Price.meter == meter.code,
            Plan.api_product_id == meter.api_product_id,
            PlanVersion.status != "draft",
            Price.currency == PlanVersion.currency,  # a price in several currencies is one use
        )
        .order_by(PlanVersion.published_at.desc(), Plan.code, PlanVersion.version.desc())
    )
    return [MeterUse(*row) for row in await session.execute(statement)]


def facts_of_meter(row: Meter) -> MeterFacts:
    """Return a meter row, loaded with its product, as a value."""
    return MeterFacts(
        code=row.code,
        name=row.name,
        api_product=row.api_product.code,
        aggregation=Aggregation(row.aggregation),
        value=row.value,
        events=MeteredEvents(row.events),
        filters=_filters(row),
        weights=dict(row.weights),
    )


def _filters(row: Meter) -> MeterFilters:
    lists = {"endpoints", "methods", "event_types", "sources"}
    given: dict[str, Any] = {name: tuple(value) if name in lists else value for name, value in row.filters.items()}
    return MeterFilters(**given)
