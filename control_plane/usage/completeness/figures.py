"""Compares the figures of an hour in the rollup with those that its stored events come to."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, cast, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import to_ms
from control_plane.usage.hours import is_one_of
from control_plane.usage.model import HourKey
from control_plane.usage.store import EventStore
from control_plane.usage.store.events import HourFigures, Voids
from control_plane.usage.tables import UsageHourly

# what an hour's figures are compared by; phases and billing follow from them and from the catalog
GROUP = ("product", "mode", "key_id", "endpoint", "status", "outcome")
SUMS = {
    "calls": "calls",
    "units": "units",
    "bytes_in": "bytes_in",
    "bytes_out": "bytes_out",
    "latency_ms": "latency_ms_sum",
    "gateway_ms": "gateway_ms_sum",
    "upstream_ms": "upstream_ms_sum",
}
MOST_DIFFERENCES = 20

Figures = Mapping[tuple[Any, ...], tuple[int, ...]]


async def rolled_up_figures(session: AsyncSession, hours: Sequence[HourKey]) -> dict[HourKey, Figures]:
    """Return what `usage_hourly` says of these hours, amendments left out: they have no events."""
    columns = [getattr(UsageHourly, name) for name in GROUP]
    sums = [cast(func.sum(getattr(UsageHourly, name)), BigInteger) for name in SUMS.values()]
    statement = (
        select(UsageHourly.account_id, UsageHourly.hour, *columns, *sums)
        .where(is_one_of(UsageHourly, hours), UsageHourly.amendment_id == "")
        .group_by(UsageHourly.account_id, UsageHourly.hour, *columns)
    )
    found: dict[HourKey, dict[tuple[Any, ...], tuple[int, ...]]] = defaultdict(dict)
    for account_id, hour, *values in await session.execute(statement):
        group, amounts = tuple(values[: len(GROUP)]), tuple(values[len(GROUP) :])
        found[HourKey(account_id, to_ms(hour))][group] = amounts
    return dict(found)


async def stored_figures(store: EventStore, hours: Sequence[HourKey], *, voids: Voids) -> dict[HourKey, Figures]:
    """Return what the stored events of these hours come to, without those that are voided."""
    return sum_figures(await asyncio.to_thread(store.hour_figures, hours, voids=voids))


def sum_figures(rows: Iterable[HourFigures]) -> dict[HourKey, Figures]:
    """Add up figures as `rolled_up_figures` has them. Pure."""
    found: dict[HourKey, dict[tuple[Any, ...], tuple[int, ...]]] = defaultdict(dict)
    for row in rows:
        group = tuple(str(getattr(row, name)) if name != "status" else row.status for name in GROUP)
        amounts = tuple(int(getattr(row, name)) for name in SUMS)
        hour = found[HourKey(row.account_id, row.hour_ms)]
        before = hour.get(group, (0,) * len(SUMS))
        hour[group] = tuple(one + other for one, other in zip(before, amounts, strict=True))
    return dict(found)


def differences(stored: Figures, rolled_up: Figures) -> list[dict[str, Any]]:
    """Return what differs, each as JSON-ready values; at most 20. Pure."""
    nothing = (0,) * len(SUMS)
    found = []
    for group in sorted({*stored, *rolled_up}):
        one, other = stored.get(group, nothing), rolled_up.get(group, nothing)
        if one != other:
            found.append(
                {
                    **dict(zip(GROUP, group, strict=True)),
                    "stored": dict(zip(SUMS, one, strict=True)),
                    "rolled_up": dict(zip(SUMS, other, strict=True)),
                }
            )
    return found[:MOST_DIFFERENCES]
