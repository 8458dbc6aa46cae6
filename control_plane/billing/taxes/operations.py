"""Adding tax rates and ending them. Nothing here commits."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import or_, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.line_scopes import LineScope
from control_plane.billing.profiles.countries import COUNTRIES
from control_plane.billing.taxes.tables import TaxRate
from control_plane.foundation.audit import record_change
from control_plane.foundation.errors import ConflictError, NotFoundError, Problem, ValidationFailedError
from control_plane.foundation.ids import new_id
from control_plane.foundation.text import clean_name

MAX_PERCENT = Decimal(100)
PERCENT_DIGITS = 4
MAX_REGION = 100


class TaxRateOverlapsError(ConflictError):
    """The same tax holds for the same place at the same time already."""

    def __init__(self, rate: TaxRate) -> None:
        place = f"{rate.country}, {rate.region}" if rate.region else rate.country or "accounts without a country"
        super().__init__(
            "tax_rate_overlaps",
            f"{rate.name} for {place} holds at that time already ({rate.id}): end that rate first.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaxRateFacts:
    """A tax; see `tables.TaxRate`. An empty `country`: for accounts of which no country is known."""

    name: str
    percent: Decimal
    country: str = ""
    region: str = ""
    scope: LineScope = LineScope.ALL
    valid_from: datetime
    valid_until: datetime | None = None


async def create_tax_rate(session: AsyncSession, *, rate: TaxRateFacts, actor: str, now: datetime) -> TaxRate:
    """Add a tax; it is on invoices that become final while it is valid. Final invoices keep what they say.

    Raises:
        ValidationFailedError: fields that are not usable. TaxRateOverlapsError: see there.
    """
    _check(rate)
    # rates are few and seldom added: one at a time, so that two that overlap cannot both be added
    await session.execute(text("LOCK TABLE tax_rates IN SHARE ROW EXCLUSIVE MODE"))
    row = TaxRate(
        id=new_id("txr", now),
        name=clean_name(rate.name),
        country=rate.country,
        region=rate.region.strip(),
        percent=rate.percent,
        scope=str(rate.scope),
        valid_from=rate.valid_from,
        valid_until=rate.valid_until,
        created_at=now,
    )
    await _refuse_overlap(session, row)
    session.add(row)
    await session.flush()
    await _record(session, row, "tax_rate.created", before=None, after=facts(row), actor=actor, now=now)
    return row


async def end_tax_rate(session: AsyncSession, *, rate_id: str, at: datetime, actor: str, now: datetime) -> TaxRate:
    """Let a rate end at a moment, now or later; a moment that was set before, and is not past, is replaced.

    Raises:
        NotFoundError. ValidationFailedError: the moment is past, or before the rate begins. TaxRateEndedError.
    """
    row = await session.get(TaxRate, rate_id, with_for_update=True, populate_existing=True)
    if row is None:
        raise NotFoundError("tax_rate", rate_id)
    if row.valid_until == at:
        return row
    if row.valid_until is not None and row.valid_until <= now:
        raise TaxRateEndedError(row)
    if row.valid_until is not None and at > row.valid_until:
        raise ValidationFailedError("at", "must not be after the end that was set: add another rate")
    if at < now:
        raise ValidationFailedError("at", "must not be in the past: invoices may have been made with the rate")
    before = {"valid_until": None if row.valid_until is None else row.valid_until.isoformat()}
    row.valid_until = max(at, row.valid_from)
    await session.flush()
    after = {"valid_until": row.valid_until.isoformat()}
    await _record(session, row, "tax_rate.ended", before=before, after=after, actor=actor, now=now)
    return row


class TaxRateEndedError(ConflictError):
    """The rate is not valid any more, and does not come back."""

    def __init__(self, rate: TaxRate) -> None:
        super().__init__("tax_rate_ended", f"Tax rate {rate.id} has ended: add another one.")


def facts(row: TaxRate) -> dict[str, Any]:
    """Return what the audit log keeps of a rate."""
    return {
        "name": row.name,
        "percent": str(row.percent),
        "country": row.country,
        "region": row.region,
        "scope": row.scope,
        "valid_from": row.valid_from.isoformat(),
        "valid_until": None if row.valid_until is None else row.valid_until.isoformat(),
    }


def _check(rate: TaxRateFacts) -> None:
    clean_name(rate.name)
    problems = []
    exponent = rate.percent.as_tuple().exponent
    if not rate.percent.is_finite() or not 0 < rate.percent <= MAX_PERCENT:
        problems.append(Problem("percent", "must be above 0 and at most 100: where there is no tax, add no rate"))
    elif isinstance(exponent, int) and exponent < -PERCENT_DIGITS:
        problems.append(Problem("percent", f"must have at most {PERCENT_DIGITS} decimals"))
    if rate.country and rate.country not in COUNTRIES:
        problems.append(Problem("country", "must be an ISO 3166 code of two capital letters, such as DE"))
    if rate.region and not rate.country:
        problems.append(Problem("region", "belongs to a country: give that, too"))
    if len(rate.region) > MAX_REGION or not rate.region.isprintable():
        problems.append(Problem("region", f"must be at most {MAX_REGION} printable characters"))
    if rate.valid_until is not None and rate.valid_until <= rate.valid_from:
        problems.append(Problem("valid_until", "must be after valid_from"))
    if problems:
        first, *more = problems
        raise ValidationFailedError(first.field, first.message, *more)


async def _refuse_overlap(session: AsyncSession, row: TaxRate) -> None:
    same = select(TaxRate).where(
        TaxRate.country == row.country,
        TaxRate.name == row.name,
        or_(TaxRate.valid_until.is_(None), TaxRate.valid_until > row.valid_from),
    )
    if row.valid_until is not None:
        same = same.where(TaxRate.valid_from < row.valid_until)
    for other in await session.scalars(same):
        if other.region.casefold() == row.region.casefold():
            raise TaxRateOverlapsError(other)


async def _record(
    session: AsyncSession,
    row: TaxRate,
    action: str,
    *,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
    actor: str,
    now: datetime,
) -> None:
    await record_change(
        session,
        actor=actor,
        action=action,
        entity_type="tax_rate",
        entity_id=row.id,
        before=before,
        after=after,
        now=now,
    )
