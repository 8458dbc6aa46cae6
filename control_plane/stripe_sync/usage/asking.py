"""Asking Stripe about one row, and writing down what came of it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.stripe_sync.client import Stripe, StripeRefused, StripeUnavailable, options
from control_plane.stripe_sync.outcomes import StripeKeyRefused
from control_plane.stripe_sync.usage import metrics
from control_plane.stripe_sync.usage.model import RowState, Way, lane_of
from control_plane.stripe_sync.usage.reasons import Reason
from control_plane.stripe_sync.usage.refusals import refusal_for
from control_plane.stripe_sync.usage.rows import Ask, rows_of_hours, settle
from control_plane.stripe_sync.usage.tables import StripeUsageRow

log = structlog.get_logger(__name__)

LONGEST_PAUSE: Final = timedelta(minutes=5)
WHILE_KEY_IS_REFUSED: Final = timedelta(minutes=1)


class Answer(StrEnum):
    """What Stripe said. `REPEATED`: it has an event of this identifier already."""

    TAKEN = "taken"
    REPEATED = "repeated"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of asking. `spent_key`: ask again under another idempotency key; `code`, `sentence`: Stripe's."""

    answer: Answer
    code: str = ""
    sentence: str = ""
    spent_key: bool = False
    pause: timedelta | None = None


async def ask_stripe(stripe: Stripe, ask: Ask) -> Outcome:
    """Ask once. Nothing that Stripe says is raised."""
    try:
        await (_cancel(stripe, ask) if ask.way is Way.CANCEL else _send(stripe, ask))
    except StripeRefused as refused:
        answer = Answer.REPEATED if is_repeated(refused) else Answer.REFUSED
        return Outcome(answer=answer, code=refused.stripe_code, sentence=refused.sentence)
    except StripeUnavailable as away:
        metrics.UNAVAILABLE.inc()
        pause = WHILE_KEY_IS_REFUSED if isinstance(away, StripeKeyRefused) else None
        return Outcome(answer=Answer.UNKNOWN, sentence=away.sentence, spent_key=away.spent_key, pause=pause)
    return Outcome(answer=Answer.TAKEN)


async def _send(stripe: Stripe, ask: Ask) -> None:
    await stripe.call(
        lambda client: client.v1.billing.meter_events.create_async(
            {
                "event_name": ask.event_name,
                "payload": {"stripe_customer_id": ask.customer_id, "value": str(ask.units)},
                "identifier": ask.identifier,
                "timestamp": int(ask.stripe_at.timestamp()),
            },
            options(ask.idempotency_key),
        ),
        lane=lane_of(ask.customer_id, ask.event_name),
    )


async def _cancel(stripe: Stripe, ask: Ask) -> None:
    cancelled = ask.cancels or ""
    await stripe.call(
        lambda client: client.v1.billing.meter_event_adjustments.create_async(
            {"event_name": ask.event_name, "type": "cancel", "cancel": {"identifier": cancelled}},
            options(ask.idempotency_key),
        ),
        lane=lane_of(ask.customer_id, ask.event_name),
    )


def is_repeated(refused: StripeRefused) -> bool:
    """Say whether Stripe has the event already; it tells in words alone."""
    said = refused.sentence.lower()
    return "already exists" in said and "identifier" in said


async def write_down(
    sessions: async_sessionmaker[AsyncSession], ask: Ask, outcome: Outcome, *, now: datetime
) -> None:
    """Put down what came of asking about a row, in a transaction of its own.

    A row that became something else meanwhile (Stripe reported an error in it) is left alone.
    """
    async with sessions() as session, session.begin():
        of_hour = (await rows_of_hours(session, [ask.key]))[ask.key.total]
        row = of_hour[ask.key.revision]
        if row.state != RowState.SENT or row.identifier != ask.identifier:
            row.leased_until = None
            return
        row.leased_until = None
        row.error = outcome.sentence
        target = of_hour[row.cancels_revision] if row.cancels_revision is not None else None
        match outcome.answer:
            case Answer.TAKEN | Answer.REPEATED:
                _taken(row, target, outcome.answer, now)
            case Answer.REFUSED:
                _refused(row, ask, outcome, now)
            case Answer.UNKNOWN:
                row.key_turn += 1 if outcome.spent_key else 0
                row.due_at = now + (outcome.pause or pause_after(row.attempts))


def _taken(row: StripeUsageRow, target: StripeUsageRow | None, answer: Answer, now: datetime) -> None:
    if target is not None:
        if target.state == RowState.DELIVERED:
            settle(target, RowState.CANCELLED, Reason.TAKEN_BACK)
        settle(row, RowState.CANCELLED, Reason.TAKEN_BACK)
        return
    row.delivered_at = now
    settle(row, RowState.DELIVERED, Reason.ALREADY_THERE if answer is Answer.REPEATED else Reason.NONE)


def _refused(row: StripeUsageRow, ask: Ask, outcome: Outcome, now: datetime) -> None:
    if ask.attempt > 1:
        # an earlier attempt, of which nothing was heard, may have been taken
        row.reason, row.due_at = Reason.MAYBE_REFUSED, now
        return
    log.error(
        "stripe refused usage",
        identifier=ask.identifier,
        way=ask.way.value,
        code=outcome.code,
        sentence=outcome.sentence,
    )
    refuse(row, code=outcome.code, sentence=outcome.sentence, now=now)


def refuse(row: StripeUsageRow, *, code: str, sentence: str, now: datetime) -> None:
    """Put down that Stripe does not count a row that it was asked about.

    What should be cancelled is taken back by an event below zero then; one that Stripe does not take is ours.
    """
    refusal = refusal_for(code)
    if row.way == Way.CANCEL:
        begin_anew(row, now=now)
        row.error = sentence
    elif refusal.state is RowState.WAITING:
        begin_anew(row, now=now)
        row.due_at, row.error = now + LONGEST_PAUSE, sentence
    elif row.delta_units < 0 and refusal.state is RowState.REFUSED:
        settle(row, RowState.OURS, Reason.NEGATIVE_REFUSED, error=sentence)
    else:
        settle(row, refusal.state, refusal.reason or code or Reason.REFUSED, error=sentence)


def begin_anew(row: StripeUsageRow, *, now: datetime) -> None:
    """Have a row that Stripe does not count decided on again, under another identifier."""
    row.state, row.reason, row.error, row.way, row.cancels_revision = (
        RowState.WAITING,
        Reason.RETRIED,
        "",
        "",
        None,
    )
    row.edition += 1
    row.key_turn, row.attempts = 1, 0
    row.first_sent_at = row.delivered_at = row.leased_until = None
    row.due_at = now


def pause_after(attempts: int) -> timedelta:
    """Return how long to leave Stripe alone with a row after so many attempts: from a second to five minutes."""
    return min(LONGEST_PAUSE, timedelta(seconds=2 ** min(attempts - 1, 10)))
