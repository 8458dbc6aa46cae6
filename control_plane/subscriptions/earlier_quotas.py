"""The quotas of its own that a subscription had in billing periods that are over: what they cost stays as it was.

Kept in the subscription's `overrides`, one entry for a period at most: {"until": ISO 8601, "quota_units": n, null
for the plan's}.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from control_plane.foundation.period import BillingPeriod

EARLIER_QUOTAS = "earlier_quotas"


@dataclass(frozen=True, slots=True)
class EarlierQuota:
    """The own quota, None for the plan's, of all periods before `until` that no earlier entry tells of."""

    until: datetime
    quota_units: int | None


def with_earlier_quota(
    overrides: Mapping[str, Any], *, quota_units: int | None, period: BillingPeriod, started_at: datetime
) -> list[dict[str, Any]] | None:
    """Return the entries once another quota takes the place of `quota_units` within `period`; None for none.

    The running period is the new quota's, also if it changes several times.
    """
    entries: list[dict[str, Any]] = list(overrides.get(EARLIER_QUOTAS, ()))
    until = period.start.isoformat()
    if started_at < period.start and all(entry["until"] != until for entry in entries):
        entries.append({"until": until, "quota_units": quota_units})
    return entries or None


def earlier_quotas(overrides: Mapping[str, Any]) -> tuple[EarlierQuota, ...]:
    """Return the entries as values, in order of time."""
    return tuple(
        EarlierQuota(datetime.fromisoformat(entry["until"]), entry["quota_units"])
        for entry in overrides.get(EARLIER_QUOTAS, ())
    )


def own_quota_in(period: BillingPeriod, earlier: Iterable[EarlierQuota], present: int | None) -> int | None:
    """Return the own quota that a billing period is, or was, rated by."""
    return next((one.quota_units for one in earlier if period.start < one.until), present)
