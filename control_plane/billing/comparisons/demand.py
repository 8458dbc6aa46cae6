"""What accounts asked for in the last 30 days, from the hourly rollups."""

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, cast, func, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.comparisons.fitting_plans import Demand
from control_plane.billing.comparisons.plan_cost import DEMAND_DAYS
from control_plane.catalog.meters import Aggregation
from control_plane.catalog.model import REQUESTS_METER
from control_plane.catalog.tables import ApiProduct, Meter
from control_plane.foundation.clock import floor_hour
from control_plane.foundation.db import is_any_of
from control_plane.usage.meters.demand import units_of_accounts
from control_plane.usage.queries import MEASURED_METERS
from control_plane.usage.tables import UsageHourly
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome

_RATE_LIMITED = (Outcome.RATE_LIMITED.value,)
_REFUSED = (*_RATE_LIMITED, Outcome.QUOTA_EXCEEDED.value)
# what a larger plan would have had to bear; other refusals ask for no larger plan, least of all those by a
# spend cap: whoever set it does not want to pay more
_WANTED = (Outcome.SERVED.value, *_REFUSED)


def demand_from(now: datetime) -> datetime:
    """Return the first hour that counts at `now`."""
    return floor_hour(now) - timedelta(days=DEMAND_DAYS)


async def demands(
    session: AsyncSession, account_ids: Collection[str], *, now: datetime
) -> dict[tuple[str, str], Demand]:
    """Return demands by account and API product's code, whatever plans held meanwhile; no usage, no entry.

    A refused call has no units of its own in the rollups: it counts one.
    """
    dimensions: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for account_id, product, dimension, amount in await session.execute(_dimensions(account_ids, now)):
        dimensions[account_id, product][dimension] = amount
    declared = await units_of_accounts(session, account_ids, start=demand_from(now), end=now)
    not_added = await not_added_meters(session, {product for _, product in declared})
    found = {}
    for row in await session.execute(_calls(account_ids, now)):
        of = row.account_id, row.product
        measured = {meter: getattr(row, meter) for meter in MEASURED_METERS if getattr(row, meter)}
        found[of] = Demand(
            units={REQUESTS_METER: row.served + row.refused, **dimensions[of], **measured, **declared.get(of, {})},
            refused_calls=row.refused,
            rate_limited_calls=row.rate_limited,
            peak_hour_calls=row.peak_calls,
            not_added=not_added.get(row.product, frozenset()),
        )
    return found


async def not_added_meters(session: AsyncSession, product_codes: Collection[str]) -> dict[str, frozenset[str]]:
    """Return, by API product's code, the declared meters whose values do not add up, archived ones too."""
    if not product_codes:
        return {}
    statement = (
        select(ApiProduct.code, Meter.code, Meter.aggregation)
        .join(Meter, Meter.api_product_id == ApiProduct.id)
        .where(ApiProduct.code.in_(product_codes))
    )
    found: dict[str, set[str]] = defaultdict(set)
    for product, meter, aggregation in await session.execute(statement):
        if not Aggregation(aggregation).adds_up:
            found[product].add(meter)
    return {product: frozenset(codes) for product, codes in found.items()}


def _calls(account_ids: Collection[str], now: datetime) -> Select[Any]:
    calls, outcome = UsageHourly.calls, UsageHourly.outcome
    # a row is billed whole or not at all
    billed = UsageHourly.billable_calls > 0
    measured = {meter: func.sum(column).filter(billed) for meter, column in MEASURED_METERS.items()}
    hours = (
        select(
            UsageHourly.account_id,
            UsageHourly.product,
            func.sum(UsageHourly.billable_units).label("served"),
            func.coalesce(func.sum(calls).filter(outcome.in_(_REFUSED)), 0).label("refused"),
            func.coalesce(func.sum(calls).filter(outcome.in_(_RATE_LIMITED)), 0).label("rate_limited"),
            func.sum(calls).label("calls"),
            *(amount.label(meter) for meter, amount in measured.items()),
        )
        .where(*_in_span(account_ids, now), outcome.in_(_WANTED))
        .group_by(UsageHourly.account_id, UsageHourly.product, UsageHourly.hour)
        .subquery()
        .c
    )
    names = ("served", "refused", "rate_limited", *MEASURED_METERS)
    sums = [_whole(func.coalesce(func.sum(hours[name]), 0)).label(name) for name in names]
    groups = (hours["account_id"], hours["product"])
    return select(*groups, *sums, _whole(func.max(hours["calls"])).label("peak_calls")).group_by(*groups)


def _dimensions(account_ids: Collection[str], now: datetime) -> Select[Any]:
    each = func.jsonb_each_text(UsageHourly.billable_dimensions).table_valued("key", "value")
    groups = (UsageHourly.account_id, UsageHourly.product, each.c.key)
    return (
        select(*groups, _whole(func.sum(cast(each.c.value, BigInteger))))
        .select_from(UsageHourly)
        .join(each, true())
        .where(*_in_span(account_ids, now))
        .group_by(*groups)
    )


def _in_span(account_ids: Collection[str], now: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        is_any_of(UsageHourly.account_id, account_ids),
        UsageHourly.hour >= demand_from(now),
        UsageHourly.hour <= now,
        UsageHourly.mode == Mode.LIVE.value,
        # what amendments add or take was not asked for
        UsageHourly.amendment_id == "",
    )


def _whole(column: ColumnElement[Any]) -> ColumnElement[int]:
    # PostgreSQL's sum of bigint is numeric
    return cast(column, BigInteger)
