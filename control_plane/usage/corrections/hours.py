"""The hour that is corrected: locked, still correctable, and what is known of its billable units."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import floor_hour, to_ms
from control_plane.foundation.errors import ConflictError, ValidationFailedError
from control_plane.usage.corrections.amounts import CALLS
from control_plane.usage.corrections.queries import amendments_of_hours
from control_plane.usage.daily.retention import hours_were_dropped
from control_plane.usage.model import HourKey
from control_plane.usage.retention import may_have_expired
from control_plane.usage.rollups.amended import billable_totals
from control_plane.usage.rollups.hour_rows import standing_rows
from control_plane.usage.rollups.ledger import ExtraUnits
from control_plane.usage.tables import UsageHour

MAX_CORRECTIONS = 1000


class HourTooOldError(ConflictError):
    """The hour's events may have expired, so that it is not counted from them again."""

    def __init__(self) -> None:
        super().__init__(
            "hour_too_old", "The hour is too old to be counted from its events again: amend it instead."
        )


class HourKeptByDayError(ConflictError):
    """Of so old an hour only the day's figures are kept."""

    def __init__(self) -> None:
        super().__init__("hour_kept_by_day", "Of so old an hour only the day's figures are kept: it stands.")


class TooManyCorrectionsError(ConflictError):
    """An hour holds as many voids, or amendments, as it may."""

    def __init__(self) -> None:
        super().__init__(
            "too_many_corrections",
            f"The hour has {MAX_CORRECTIONS:,} corrections of this kind: amend it by one sum instead.",
        )


@dataclass(frozen=True, slots=True)
class KnownUnits:
    """Billable units of an hour by phase and meter ('' counts calls), amendments in force included."""

    units: Mapping[tuple[str, str], int]
    amendments: int

    def of_phase(self, phase_id: str) -> dict[str, int]:
        return {meter: units for (phase, meter), units in self.units.items() if phase == phase_id}


def require_full_hour(hour: datetime, now: datetime) -> None:
    """Raise ValidationFailedError unless it is a full hour that has begun."""
    if floor_hour(hour) != hour:
        raise ValidationFailedError("hour", "must be a full hour (UTC)")
    if hour > now:
        raise ValidationFailedError("hour", "must not be in the future")


def require_countable(hour: datetime, now: datetime, *, kept_days: int) -> None:
    """Raise HourTooOldError where the hour is not counted from its events again."""
    if may_have_expired(to_ms(hour), now, kept_days=kept_days):
        raise HourTooOldError


async def lock_hour(session: AsyncSession, *, account_id: str, hour: datetime) -> None:
    """Lock the hour's row until the end of the transaction, making it where there was no usage.

    May wait for the aggregator that is recomputing it.

    Raises:
        HourKeptByDayError.
    """
    row = insert(UsageHour).values(account_id=account_id, hour=hour, revision=0)
    # in one statement: the aggregator may take away a row without figures while somebody waits for its lock
    await session.execute(
        row.on_conflict_do_update(
            index_elements=[UsageHour.account_id, UsageHour.hour], set_={"revision": UsageHour.revision}
        )
    )
    if await hours_were_dropped(session, account_id=account_id, hour=hour):
        raise HourKeptByDayError


async def known_units(
    session: AsyncSession, *, account_id: str, hour: datetime, extra_units: Sequence[ExtraUnits]
) -> KnownUnits:
    """Return what is known of the hour, which the caller has locked; amendments that wait to be applied count."""
    key = HourKey(account_id, to_ms(hour))
    standing = (await standing_rows(session, [key])).get(key, {})
    units: Counter[tuple[str, str]] = billable_totals(
        {row: values for row, values in standing.items() if not row.amendment_id}
    )
    for one in extra_units:
        for (_, phase_id, meter), amount in (await one(session, [key])).items():
            units[phase_id, meter] += amount
    amendments = (await amendments_of_hours(session, [key])).get(key, ())
    for amendment in amendments:
        for meter, amount in {CALLS: amendment.calls, **amendment.meters}.items():
            units[amendment.phase_id, meter] += amount
    return KnownUnits(units, len(amendments))
