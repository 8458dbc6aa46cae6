"""What phases of subscriptions have used, and how much of it may still turn out not to be billed."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Select, Text, and_, case, cast, func, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.db import UtcDateTime
from control_plane.usage.queries import REQUESTS_METER
from control_plane.usage.tables import UsageHour, UsageHourly
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
) -> dict[str, CountedUnits]:
    """Return units of live calls by phase, each within its span (phase, from, to) of whole hours."""
    found: dict[str, CountedUnits] = defaultdict(CountedUnits)
    if not spans:
        return found
    served = UsageHourly.outcome == Outcome.SERVED.value
    open_units = case(
        (UsageHour.sealed_at.is_(None) & served, UsageHourly.units), else_=UsageHourly.billable_units
    )
    rows = await session.execute(
        _in_spans(
            select(UsageHourly.phase_id, _total(UsageHourly.billable_units), _total(open_units)), spans
        ).group_by(UsageHourly.phase_id)
    )
    for phase_id, billable, at_most in rows:
        found[phase_id].billable[REQUESTS_METER] = billable
        found[phase_id].at_most[REQUESTS_METER] = at_most
    open_dimensions = case(
        (UsageHour.sealed_at.is_(None) & served, UsageHourly.dimensions), else_=UsageHourly.billable_dimensions
    )
    for column, name in ((UsageHourly.billable_dimensions, "billable"), (open_dimensions, "at_most")):
        each = func.jsonb_each_text(column).table_valued("key", "value").lateral()
        statement = select(UsageHourly.phase_id, each.c.key, _total(cast(each.c.value, BigInteger)))
        rows = await session.execute(
            _in_spans(statement, spans).join(each, true()).group_by(UsageHourly.phase_id, each.c.key)
        )
        for phase_id, dimension, units in rows:
            getattr(found[phase_id], name)[dimension] = units
    return found


def _in_spans(statement: Select[Any], spans: Collection[tuple[str, datetime, datetime]]) -> Select[Any]:
    phases, starts, ends = zip(*spans, strict=True)
    asked = (
        func.unnest(
            cast(list(phases), ARRAY(Text())),
            cast(list(starts), ARRAY(UtcDateTime())),
            cast(list(ends), ARRAY(UtcDateTime())),
        )
        .table_valued("phase_id", "starts_at", "ends_at")
        .render_derived()
    )
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
