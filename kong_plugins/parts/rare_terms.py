"""What few callers have, in the form in which the limit script reads it."""

from collections.abc import Sequence
from typing import Any

import msgspec

from gateway_contract.counters import UNITS, dimension_units
from gateway_contract.records import Allowance, Period, ProductGrant
from kong_plugins.parts.spend_prices import pack_spend_cap


def pack_rare(
    grant: ProductGrant,
    *,
    route_name: str,
    units: int,
    has_spend_cap: bool,
    dry_run: bool,
    quota: int | None,
    ceiling: int | None,
) -> bytes | str:
    """Return what few callers have in one argument, so that it costs the others nothing.

    `quota` and `ceiling` of units are those of the period within which the plan changed.

    Raises:
        SpendCapError: the grant has a spend cap that cannot be kept on this route.
    """
    rare: dict[str, Any] = {}
    if dry_run:
        rare["dry_run"] = True
    if has_spend_cap and grant.spend_cap is not None:
        rare["spend"] = pack_spend_cap(grant.spend_cap, route_name=route_name, units=units)
    if grant.concurrency is not None:
        rare["in_flight"] = [grant.concurrency.limit, grant.concurrency.lease_ms]
    if grant.next is not None:
        rare["ends_at"] = grant.next.starts_at_ms
    if grant.allowance is not None:
        rare["allowance"] = _pack_allowance(grant.allowance, grant.periods, quota, ceiling)
    return msgspec.msgpack.encode(rare) if rare else ""


def _pack_allowance(
    allowance: Allowance, periods: Sequence[Period], quota: int | None, ceiling: int | None
) -> dict[str, Any]:
    starts = [period.start_ms for period in periods]
    apart = not allowance.carried
    packed: dict[str, Any] = {
        # the script counts periods from 1; 0 is none of them
        "period": starts.index(allowance.period_start_ms) + 1 if allowance.period_start_ms in starts else 0,
        "of": dimension_units(allowance.part) if apart and allowance.part else UNITS,
        "without": [dimension_units(other) for other in allowance.others] if apart and not allowance.part else [],
        "part": dimension_units(allowance.part) if allowance.part else "",
    }
    if quota is not None:
        packed["limit"] = quota
    if ceiling is not None:
        packed["ceiling"] = ceiling
    return packed
