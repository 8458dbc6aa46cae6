"""Amending what is billable of an hour, and taking that back. Nothing here commits; locks: see `voiding`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.queries import account
from control_plane.catalog.meters import Aggregation
from control_plane.catalog.model import BUILT_IN_METERS
from control_plane.catalog.queries import api_product
from control_plane.catalog.tables import Meter
from control_plane.foundation.errors import ConflictError, NotFoundError, ValidationFailedError
from control_plane.foundation.ids import new_id
from control_plane.subscriptions.queries import phases_for_hours
from control_plane.usage.corrections.amounts import (
    Amounts,
    checked_amounts,
    clean_reason,
    clean_reference,
    require_known_meters,
    require_nothing_below_zero,
)
from control_plane.usage.corrections.hours import (
    MAX_CORRECTIONS,
    TooManyCorrectionsError,
    known_units,
    lock_hour,
    require_full_hour,
)
from control_plane.usage.corrections.queries import AmendmentRecord
from control_plane.usage.corrections.records import add_correction, withdraw
from control_plane.usage.corrections.tables import UsageAmendment, UsageWithdrawal
from control_plane.usage.rollups.ledger import ExtraUnits

HOUR = timedelta(hours=1)
_SAME = ("hour", "phase_id", "product", "key_id", "endpoint", "calls", "meters")


class ReferenceTakenError(ConflictError):
    """Another amendment of the account has this reference."""

    def __init__(self, amendment_id: str) -> None:
        super().__init__("reference_taken", f"Amendment {amendment_id} has this reference, and says otherwise.")


@dataclass(frozen=True, slots=True, kw_only=True)
class AmendedPlace:
    """Where an amendment belongs. Without `phase_id`: the one phase that the hour has of this product."""

    account_id: str
    hour: datetime
    product: str
    phase_id: str | None = None
    key_id: str = ""
    endpoint: str = ""


async def amend_hour(
    session: AsyncSession,
    *,
    place: AmendedPlace,
    calls: int = 0,
    meters: Mapping[str, int] | None = None,
    reason: str,
    reference: str | None = None,
    actor: str,
    now: datetime,
    extra_units: Sequence[ExtraUnits] = (),
) -> UsageAmendment:
    """Add to what is billable of an hour, or take from it (below zero): calls, and units by meter.

    `requests` are quota units; they do not follow from `calls`. What is billable of an hour, phase and meter is
    never taken below zero. With a `reference` idempotent: the amendment that has it already is returned.

    Raises:
        NotFoundError: no such account or API product. ValidationFailedError: names the first wrong field.
        BelowZeroError: there is less than would be taken. HourKeptByDayError, TooManyCorrectionsError.
        ReferenceTakenError: another amendment has this reference.
    """
    amounts = checked_amounts(calls, meters or {})
    reason, reference = clean_reason(reason), clean_reference(reference)
    require_full_hour(place.hour, now)
    await account(session, place.account_id)
    product = await api_product(session, place.product)
    phase_id = await _phase(session, place)
    await lock_hour(session, account_id=place.account_id, hour=place.hour)
    declared = await _declared(session, product.id)
    row = UsageAmendment(
        id=new_id("uam", now),
        account_id=place.account_id,
        hour=place.hour,
        phase_id=phase_id,
        product=place.product,
        key_id=place.key_id,
        endpoint=place.endpoint,
        calls=amounts.calls,
        meters=dict(amounts.meters),
        declared=sorted(declared.intersection(amounts.meters)),
        reference=reference,
        reason=reason,
        author=actor,
        created_at=now,
    )
    if reference is not None and (same := await _of_reference(session, row)) is not None:
        return same
    known = await known_units(session, account_id=row.account_id, hour=row.hour, extra_units=extra_units)
    if known.amendments >= MAX_CORRECTIONS:
        raise TooManyCorrectionsError
    units = known.of_phase(phase_id)
    countable = BUILT_IN_METERS.union(product.unit_headers)
    require_known_meters(amounts, countable=countable, declared=declared, known=units)
    require_nothing_below_zero(amounts, units)
    await add_correction(session, row, actor=actor, now=now)
    return row


async def withdraw_amendment(
    session: AsyncSession,
    *,
    amendment_id: str,
    reason: str,
    actor: str,
    now: datetime,
    extra_units: Sequence[ExtraUnits] = (),
) -> AmendmentRecord:
    """Take an amendment back. Idempotent: the first withdrawal stands.

    Raises:
        NotFoundError. ValidationFailedError: the reason. HourKeptByDayError. BelowZeroError: other amendments have
        taken what this one added; withdraw those first.
    """
    reason = clean_reason(reason)
    row = await session.get(UsageAmendment, amendment_id)
    if row is None:
        raise NotFoundError("usage_amendment", amendment_id)
    await lock_hour(session, account_id=row.account_id, hour=row.hour)
    if (done := await session.get(UsageWithdrawal, amendment_id)) is not None:
        return AmendmentRecord(row, done)
    known = await known_units(session, account_id=row.account_id, hour=row.hour, extra_units=extra_units)
    back = Amounts(-row.calls, {meter: -int(units) for meter, units in row.meters.items()})
    require_nothing_below_zero(back, known.of_phase(row.phase_id))
    return AmendmentRecord(row, await withdraw(session, row, reason=reason, actor=actor, now=now))


async def _phase(session: AsyncSession, place: AmendedPlace) -> str:
    found = await phases_for_hours(session, [(place.account_id, place.hour, place.hour + HOUR)])
    phases = [phase.phase_id for phase in found if phase.product_code == place.product]
    if not phases:
        raise ValidationFailedError("hour", f"the account had no subscription to {place.product} then")
    if place.phase_id in phases:
        return place.phase_id
    if place.phase_id is None and len(phases) == 1:
        return phases[0]
    raise ValidationFailedError("phase_id", f"must be one of the hour's phases: {', '.join(phases)}")


async def _declared(session: AsyncSession, product_id: str) -> set[str]:
    """Return the declared meters of a product whose hours add up: of others nothing can be taken from one hour."""
    adding_up = [aggregation.value for aggregation in Aggregation if aggregation.adds_up]
    rows = await session.scalars(
        select(Meter.code).where(Meter.api_product_id == product_id, Meter.aggregation.in_(adding_up))
    )
    return set(rows)


async def _of_reference(session: AsyncSession, wanted: UsageAmendment) -> UsageAmendment | None:
    """Return the amendment that has the reference already; it must say the same."""
    # one at a time in an account: two with one reference may be of different hours
    turn = func.pg_advisory_xact_lock(func.hashtextextended(f"usage_amendments {wanted.account_id}", 0))
    await session.execute(select(turn))
    known = await session.scalar(
        select(UsageAmendment).where(
            UsageAmendment.account_id == wanted.account_id, UsageAmendment.reference == wanted.reference
        )
    )
    if known is not None and any(getattr(known, name) != getattr(wanted, name) for name in _SAME):
        raise ReferenceTakenError(known.id)
    return known
