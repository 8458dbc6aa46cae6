"""What phases of subscriptions have used, and how much of it may still turn out not to be billed."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Select, Text, and_, case, cast, column, func, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.db import UtcDateTime
from control_plane.usage.meters.values import declared_codes, metered_units
from control_plane.usage.queries import MEASURED_METERS, REQUESTS_METER
from control_plane.usage.tables import UsageHour, UsageHourly, is_billed
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class CountedUnits:
    """Units by meter. `billable` as far as it is known; `at_most` also has what failed in hours that are open.

    The gateway counts an hour as `at_most` does until it is settled, and then as `billable` does.
    """

    billable: dict[str, int] = field(default_factory=dict)
    at_most: dict[str, int] = field(default_factory=dict)


async def units_of_phases(
    session: AsyncSession, spans: Collection[tuple[str, datetime, datetime]]
) -> dict[tuple[str, datetime], CountedUnits]:
    """Return units of live calls by phase and start of the span: (phase, from, to), whole hours.

    What declared meters come to is only known as far as it is billed.
    """
    found: dict[tuple[str, datetime], CountedUnits] = defaultdict(CountedUnits)
    if not spans:
        return found
    asked = _asked(spans)
    place = (UsageHourly.phase_id, asked.c.starts_at)
    is_open = UsageHour.sealed_at.is_(None) & (UsageHourly.outcome == Outcome.SERVED.value)
    amounts = {REQUESTS_METER: UsageHourly.units, **MEASURED_METERS}
    billable = [_total(case((is_billed(), amount), else_=0)) for amount in amounts.values()]
    at_most = [_total(case((is_open | is_billed(), amount), else_=0)) for amount in amounts.values()]
    rows = await session.execute(_within(select(*place, *billable, *at_most), asked).group_by(*place))
    for phase_id, starts_at, *totals in rows:
        counted = found[phase_id, starts_at]
        counted.billable.update(zip(amounts, totals[: len(amounts)], strict=True))
        counted.at_most.update(zip(amounts, totals[len(amounts) :], strict=True))
    dimensions = case((is_open, UsageHourly.dimensions), else_=UsageHourly.billable_dimensions)
    for values, name in ((UsageHourly.billable_dimensions, "billable"), (dimensions, "at_most")):
        each = func.jsonb_each_text(values).table_valued("key", "value").lateral()
        groups = (*place, UsageHourly.product, UsageHourly.amendment_id != "", each.c.key)
        statement = select(*groups, _total(cast(each.c.value, BigInteger)))
        rows = (await session.execute(_within(statement, asked).join(each, true()).group_by(*groups))).all()
        declared = await declared_codes(session, {row.product for row in rows})
        for phase_id, starts_at, product, amended, dimension, units in rows:
            # amendments of a declared meter stand in rows, what it counted does not
            if amended or dimension not in declared.get(product, ()):
                _add(getattr(found[phase_id, starts_at], name), dimension, units)
    for (phase_id, starts_at), values_of in (await metered_units(session, spans)).items():
        for code, units in values_of.items():
            _add(found[phase_id, starts_at].billable, code, units)
            _add(found[phase_id, starts_at].at_most, code, units)
    return found


def _add(units: dict[str, int], meter: str, more: int) -> None:
    units[meter] = units.get(meter, 0) + more


def _asked(spans: Collection[tuple[str, datetime, datetime]]) -> Any:
    phases, starts, ends = zip(*spans, strict=True)
    return (
        func.unnest(
            cast(list(phases), ARRAY(Text())),
            cast(list(starts), ARRAY(UtcDateTime())),
            cast(list(ends), ARRAY(UtcDateTime())),
        )
        .table_valued(
            column("phase_id", Text()), column("starts_at", UtcDateTime()), column("ends_at", UtcDateTime())
        )
        .render_derived()
    )


def _within(statement: Select[Any], asked: Any) -> Select[Any]:
    return (
        statement.select_from(UsageHourly)
        .join(
            asked,
            and_(
                asked.c.phase_id == UsageHourly.phase_id,
                UsageHourly.hour >= asked.c.starts_at,
                UsageHourly.hour < asked.c.ends_at,
            ),
        )
        .outerjoin(
            UsageHour,
            and_(UsageHour.account_id == UsageHourly.account_id, UsageHour.hour == UsageHourly.hour),
        )
        .where(UsageHourly.mode == Mode.LIVE.value)
    )


def _total(value: Any) -> Any:
    # PostgreSQL's sum of bigint is numeric
    return cast(func.sum(value), BigInteger)
