"""Rows whose outcome is unknown, and that must not simply be sent again: what Stripe's summary says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import floor_hour
from control_plane.stripe_sync.client import Stripe, StripeRefused, StripeUnavailable
from control_plane.stripe_sync.usage.asking import begin_anew, pause_after, refuse
from control_plane.stripe_sync.usage.model import RowState, Way
from control_plane.stripe_sync.usage.reasons import Reason
from control_plane.stripe_sync.usage.rows import Look, key_of, lock_queue, rows_of_hours, settle
from control_plane.stripe_sync.usage.summaries import QUIET, is_same, units_at_stripe
from control_plane.stripe_sync.usage.tables import StripeUsageRow

log = structlog.get_logger(__name__)

HOUR: Final = timedelta(hours=1)
WHILE_UNCLEAR: Final = timedelta(hours=1)
MOST_IN_DOUBT: Final = 16
"""So many rows of one customer, meter and hour can be told apart by their sum."""


def which_are_there(excess_units: int, doubtful: Sequence[int]) -> tuple[bool, ...] | None:
    """Return which rows Stripe has, by what its sum has more than what is known to be there; None: no telling.

    Where several choices come to the same sum, any of them makes the sum right.
    """
    if len(doubtful) > MOST_IN_DOUBT:
        return None
    choices: dict[int, tuple[bool, ...]] = {0: ()}
    for units in doubtful:
        with_it = {total + units: (*choice, True) for total, choice in choices.items()}
        choices = {total: (*choice, False) for total, choice in choices.items()}
        for total, choice in with_it.items():
            choices.setdefault(total, choice)
    exact = choices.get(excess_units)
    if exact is not None:
        return exact
    near = [choice for total, choice in choices.items() if is_same(excess_units, total)]
    return near[0] if len(near) == 1 else None


@dataclass(frozen=True, slots=True)
class _Hour:
    """What we know of an hour of a customer's meter at Stripe."""

    delivered_units: int
    doubtful: tuple[StripeUsageRow, ...]
    latest: datetime | None


async def look(sessions: async_sessionmaker[AsyncSession], stripe: Stripe, wanted: Look, *, now: datetime) -> bool:
    """See whether Stripe counts a row, and decide on all rows of its customer, meter and hour that are in doubt.

    What is there is delivered; what is not waits again to be sent (or is refused, where Stripe has said so). Put
    off while Stripe may not have summed up yet what it took last. Returns whether it was decided.
    """
    start = floor_hour(wanted.stripe_at)
    async with sessions() as session, session.begin():
        hour = await _hour(session, wanted, start)
        if hour.latest is not None and hour.latest + QUIET > now:
            await _put_off(session, wanted, Reason.UNKNOWN, until=hour.latest + QUIET)
            return False
    try:
        stripe_units = await units_at_stripe(
            sessions,
            stripe,
            customer_id=wanted.customer_id,
            event_name=wanted.event_name,
            start=start,
            end=start + HOUR,
        )
    except (StripeRefused, StripeUnavailable, ValueError) as error:
        async with sessions() as session, session.begin():
            await _put_off(session, wanted, Reason.UNKNOWN, until=now + pause_after(5), error=str(error))
        return False
    async with sessions() as session, session.begin():
        await lock_queue(session)
        again = await _hour(session, wanted, start)
        if _ids(again) != _ids(hour) or again.delivered_units != hour.delivered_units:
            await _put_off(session, wanted, Reason.UNKNOWN, until=now + QUIET)
            return False
        there = which_are_there(stripe_units - again.delivered_units, [row.delta_units for row in again.doubtful])
        if there is None:
            log.error(
                "nobody can tell whether stripe counts a row of usage",
                customer_id=wanted.customer_id,
                event_name=wanted.event_name,
                hour=start,
                stripe_units=stripe_units,
                delivered_units=again.delivered_units,
            )
            said = f"Stripe counts {stripe_units} units in this hour, {again.delivered_units} were delivered."
            await _put_off(session, wanted, Reason.UNCLEAR, until=now + WHILE_UNCLEAR, error=said)
            return False
        await _decide(session, again.doubtful, there, now)
    return True


async def _hour(session: AsyncSession, wanted: Look, start: datetime) -> _Hour:
    rows = (
        await session.scalars(
            select(StripeUsageRow)
            .where(
                StripeUsageRow.customer_id == wanted.customer_id,
                StripeUsageRow.event_name == wanted.event_name,
                StripeUsageRow.stripe_at >= start,
                StripeUsageRow.stripe_at < start + HOUR,
            )
            .order_by(StripeUsageRow.hour, StripeUsageRow.revision, StripeUsageRow.phase_id)
        )
    ).all()
    delivered = [row for row in rows if row.state == RowState.DELIVERED]
    doubtful = tuple(row for row in rows if row.state == RowState.SENT)
    return _Hour(
        sum(row.delta_units for row in delivered),
        doubtful,
        # what was cancelled may still be in the sum, too
        max((row.sent_at for row in rows if row.sent_at is not None), default=None),
    )


def _ids(hour: _Hour) -> list[str | None]:
    return [row.identifier for row in hour.doubtful]


async def _decide(
    session: AsyncSession, doubtful: Sequence[StripeUsageRow], there: Sequence[bool], now: datetime
) -> None:
    hours = await rows_of_hours(session, [key_of(row) for row in doubtful])
    for row, is_there in zip(doubtful, there, strict=True):
        if not is_there:
            _missing(row, now)
        elif row.way == Way.CANCEL:
            _forgotten(row, hours[key_of(row).total])
        else:
            row.delivered_at = now
            settle(row, RowState.DELIVERED, Reason.SEEN_IN_SUMMARY)


def _missing(row: StripeUsageRow, now: datetime) -> None:
    if row.reason == Reason.MAYBE_REFUSED:
        refuse(row, code="", sentence=row.error, now=now)
        return
    if row.way == Way.CANCEL:
        begin_anew(row, now=now)
        return
    # under the same identifier: should Stripe know it after all, it says so
    row.state, row.reason, row.first_sent_at, row.leased_until = RowState.WAITING, Reason.RETRIED, None, None
    row.key_turn += 1
    row.due_at = now


def _forgotten(row: StripeUsageRow, of_hour: Mapping[int, StripeUsageRow]) -> None:
    target = of_hour.get(row.cancels_revision or 0)
    if target is not None and target.state == RowState.DELIVERED:
        settle(target, RowState.CANCELLED, Reason.TAKEN_BACK)
    settle(row, RowState.CANCELLED, Reason.TAKEN_BACK)


async def _put_off(
    session: AsyncSession, wanted: Look, reason: Reason, *, until: datetime, error: str = ""
) -> None:
    row = (await rows_of_hours(session, [wanted.key]))[wanted.key.total][wanted.key.revision]
    if row.state == RowState.SENT:
        row.due_at, row.leased_until = until, None
        row.error = error or row.error
        if row.reason != Reason.MAYBE_REFUSED:
            row.reason = reason
