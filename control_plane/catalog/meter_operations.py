"""Declaring meters and taking them away. Nothing here commits; writers of the catalogue take turns on one lock."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from control_plane.catalog.locks import lock_catalog, locked_product
from control_plane.catalog.meter_queries import facts_of_meter, uses_of_meter
from control_plane.catalog.meters import MAX_METERS, MeterFacts, check_meter
from control_plane.catalog.queries import facts_of_product
from control_plane.catalog.tables import ApiProduct, Meter, Plan, PlanVersion, Price
from control_plane.foundation.audit import record_change
from control_plane.foundation.errors import ConflictError, NotFoundError
from control_plane.foundation.ids import new_id


class MeterCodeTakenError(ConflictError):
    """Codes are never used again for something else: what was billed under one must stay readable."""

    def __init__(self, code: str, by: str) -> None:
        super().__init__("meter_code_taken", f"{code} is the code of {by} already.")


class MeterInUseError(ConflictError):
    """A price counts the meter: what it counts cannot change under those who pay for it."""

    def __init__(self, code: str, plan: str) -> None:
        super().__init__(
            "meter_in_use",
            f"Meter {code} is counted by prices of plan {plan}, so it stays as it is: declare another one, and "
            "archive this one.",
        )


class MeterOnSaleError(ConflictError):
    """A plan version that is on sale has a price on the meter."""

    def __init__(self, code: str, plan: str) -> None:
        super().__init__("meter_on_sale", f"Meter {code} is counted by plan {plan}, which is on sale.")


class TooManyMetersError(ConflictError):
    """Each meter is counted for every hour of its API product's accounts."""

    def __init__(self, product: str) -> None:
        super().__init__("too_many_meters", f"API product {product} has {MAX_METERS} meters: archive some first.")


async def create_meter(session: AsyncSession, *, meter: MeterFacts, actor: str, now: datetime) -> Meter:
    """Declare a meter. It counts from the hours that are open now; see `usage.meters.backfills` for those before.

    Raises:
        NotFoundError: no such API product. ValidationFailedError, MeterCodeTakenError, TooManyMetersError.
    """
    await lock_catalog(session)
    product = await locked_product(session, meter.api_product)
    meter = check_meter(meter, product=facts_of_product(product))
    if await session.scalar(select(Meter.id).where(Meter.code == meter.code)):
        raise MeterCodeTakenError(meter.code, "a meter")
    await _require_free_code(session, meter.code, product)
    standing = select(func.count()).where(Meter.api_product_id == product.id, Meter.archived_at.is_(None))
    if (await session.scalar(standing) or 0) >= MAX_METERS:
        raise TooManyMetersError(product.code)
    row = _new_row(meter, product, now)
    session.add(row)
    await _record(session, row, "meter.created", before=None, actor=actor, now=now)
    return row


async def update_meter(session: AsyncSession, *, meter: MeterFacts, actor: str, now: datetime) -> Meter:
    """Give the meter of this code these facts; an archived one comes back. What is there changes nothing.

    The name can change at any time. What it counts can only change while no published plan version has a price on
    it; it then begins anew, without the values that it had.

    Raises:
        NotFoundError: no such meter. ValidationFailedError. MeterInUseError. MeterCodeTakenError: it would move to
        another API product.
    """
    await lock_catalog(session)
    row = await _locked_meter(session, meter.code)
    before = facts_of_meter(row)
    if before.api_product != meter.api_product:
        raise MeterCodeTakenError(meter.code, f"a meter of {before.api_product}")
    meter = check_meter(meter, product=facts_of_product(row.api_product))
    if before == meter and row.archived_at is None:
        return row
    if not before.counts_like(meter):
        uses = await uses_of_meter(session, row)
        if uses:
            raise MeterInUseError(meter.code, uses[0].plan)
        return await _replace(session, row, meter, actor=actor, now=now)
    row.name, row.archived_at = meter.name, None
    await _record(session, row, "meter.updated", before=before, actor=actor, now=now)
    return row


async def archive_meter(session: AsyncSession, *, code: str, actor: str, now: datetime) -> Meter:
    """Keep new prices from naming a meter. Archiving an archived one changes nothing.

    It goes on counting for plan versions that have a price on it, and stops where there are none.

    Raises:
        NotFoundError: no such meter. MeterOnSaleError: a plan that is on sale has a price on it.
    """
    await lock_catalog(session)
    row = await _locked_meter(session, code)
    if row.archived_at is not None:
        return row
    for use in await uses_of_meter(session, row):
        if use.status == "published":
            raise MeterOnSaleError(code, use.plan)
    row.archived_at = now
    await _record(session, row, "meter.archived", before=facts_of_meter(row), actor=actor, now=now)
    return row


async def _replace(session: AsyncSession, row: Meter, meter: MeterFacts, *, actor: str, now: datetime) -> Meter:
    """Put another row in the meter's place: what is being counted by the old one now stays the old one's."""
    before, product = facts_of_meter(row), row.api_product
    await session.delete(row)
    await session.flush()
    new = _new_row(meter, product, now)
    session.add(new)
    await _record(session, new, "meter.replaced", before=before, actor=actor, now=now)
    return new


async def _locked_meter(session: AsyncSession, code: str) -> Meter:
    statement = (
        select(Meter).where(Meter.code == code).options(selectinload(Meter.api_product)).with_for_update(of=Meter)
    )
    row = (await session.scalars(statement.execution_options(populate_existing=True))).one_or_none()
    if row is None:
        raise NotFoundError("meter", code)
    return row


async def _require_free_code(session: AsyncSession, code: str, product: ApiProduct) -> None:
    """A price may count a dimension that the API product does not report any more."""
    statement = (
        select(Plan.code)
        .join(PlanVersion, PlanVersion.plan_id == Plan.id)
        .join(Price, Price.plan_version_id == PlanVersion.id)
        .where(
            Price.meter == code,
            Plan.api_product_id == product.id,
            PlanVersion.status != "draft",  # a draft may name a meter that is still to be declared
        )
        .limit(1)
    )
    plan = await session.scalar(statement)
    if plan is not None:
        raise MeterCodeTakenError(code, f"a dimension that plan {plan} has a price on")


def _new_row(meter: MeterFacts, product: ApiProduct, now: datetime) -> Meter:
    return Meter(
        id=new_id("mtr", now),
        code=meter.code,
        name=meter.name,
        api_product=product,
        aggregation=meter.aggregation.value,
        value=meter.value,
        events=meter.events.value,
        filters=meter.filters.as_dict(),
        weights=meter.weights,
        created_at=now,
    )


async def _record(
    session: AsyncSession, row: Meter, action: str, *, before: MeterFacts | None, actor: str, now: datetime
) -> None:
    await session.flush()
    await record_change(
        session,
        actor=actor,
        action=action,
        entity_type="meter",
        entity_id=row.id,
        before=before.as_dict() if before else None,
        after={**facts_of_meter(row).as_dict(), "archived": row.archived_at is not None},
        now=now,
    )
