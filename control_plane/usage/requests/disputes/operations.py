"""What happens to a dispute: every step is an entry of its trail and an audit row, in one transaction.

Nothing here commits. A step locks its case first, so steps are numbered without gaps.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.queries import account
from control_plane.foundation.audit import record_change
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from control_plane.foundation.ids import new_id
from control_plane.usage.requests.disputes.evidence import chosen_requests, copy_events
from control_plane.usage.requests.disputes.model import (
    Decision,
    DisputeFacts,
    DisputeStatus,
    NoSuchRequestsError,
    Step,
    status_after,
)
from control_plane.usage.requests.disputes.tables import Dispute, DisputeStep
from control_plane.usage.requests.disputes.voiding import void_requests
from control_plane.usage.store import EventStore
from gateway_contract.usage_events import UsageEvent


async def open_dispute(
    session: AsyncSession,
    *,
    account_id: str,
    facts: DisputeFacts,
    events: Sequence[UsageEvent],
    selection: Mapping[str, Any],
    actor: str,
    now: datetime,
) -> Dispute:
    """Open a case about requests of an account. `selection` says how they were found, for the trail.

    The requests are copied as they are now. There may be none yet.

    Raises:
        NotFoundError: there is no such account.
        TooManyDisputedRequestsError: there are more than 10,000.
    """
    await account(session, account_id)
    dispute = Dispute(
        id=new_id("dsp", now),
        account_id=account_id,
        status=DisputeStatus.OPEN.value,
        subject=facts.subject,
        reason=facts.reason,
        period_text=facts.period_text,
        amount_text=facts.amount_text,
        opened_by=actor,
        opened_at=now,
        decision=None,
        explanation="",
        decided_at=None,
        request_count=0,
        steps=1,
    )
    session.add(dispute)
    await session.flush()
    added = await copy_events(session, dispute, events, step=1)
    details = {"selection": dict(selection), "requests": added} if events else {}
    _add_step(session, dispute, Step.OPENED, before=None, text=facts.reason, details=details, actor=actor, now=now)
    await _record(
        session, dispute, Step.OPENED, before=None, details={"subject": facts.subject}, actor=actor, now=now
    )
    return dispute


async def add_requests(
    session: AsyncSession,
    *,
    dispute_id: str,
    events: Sequence[UsageEvent],
    selection: Mapping[str, Any],
    actor: str,
    now: datetime,
) -> Dispute:
    """Add more requests to a case that is not decided; those that are in it already stay as they were copied.

    Raises:
        NotFoundError: there is no such case.
        DisputeStepRefusedError: it is decided.
        NoSuchRequestsError: nothing new was found.
        TooManyDisputedRequestsError: there would be more than 10,000.
    """
    dispute = await locked_dispute(session, dispute_id)
    status_after(dispute.status, Step.REQUESTS_ADDED)
    added = await copy_events(session, dispute, events, step=dispute.steps + 1)
    if not added:
        raise NoSuchRequestsError
    details = {"selection": dict(selection), "requests": added}
    await _step(session, dispute, Step.REQUESTS_ADDED, details=details, actor=actor, now=now)
    return dispute


async def add_note(
    session: AsyncSession, *, dispute_id: str, text: str, internal: bool, actor: str, now: datetime
) -> Dispute:
    """Add a note; an internal one is left out of the file for the customer. Possible at any time."""
    dispute = await locked_dispute(session, dispute_id)
    await _step(session, dispute, Step.NOTED, text=text, internal=internal, actor=actor, now=now)
    return dispute


async def start_review(session: AsyncSession, *, dispute_id: str, text: str, actor: str, now: datetime) -> Dispute:
    """Begin to look into an open case. Raises DisputeStepRefusedError where it is not open."""
    dispute = await locked_dispute(session, dispute_id)
    await _step(session, dispute, Step.REVIEW_STARTED, text=text, actor=actor, now=now)
    return dispute


async def decide(
    session: AsyncSession,
    *,
    dispute_id: str,
    decision: Decision,
    explanation: str,
    void_in: EventStore | None = None,
    void_only: Collection[str] = (),
    actor: str,
    now: datetime,
) -> Dispute:
    """Decide a case under review. With `void_in` its requests count nothing from then on, or `void_only` of them.

    Raises:
        DisputeStepRefusedError: it is not under review.
        ValidationFailedError: requests of a rejected case cannot be voided; one to be voided is not in the case.
        TooManyVoidsError, KmError: a request cannot be voided; then nothing is decided.
    """
    if void_in is not None and decision is Decision.REJECTED:
        raise ValidationFailedError("void_requests", "cannot go with a rejected dispute")
    if void_only and void_in is None:
        raise ValidationFailedError("void_only", "needs void_requests")
    dispute = await locked_dispute(session, dispute_id)
    status_after(dispute.status, Step.DECIDED)
    dispute.decision, dispute.explanation, dispute.decided_at = decision.value, explanation, now
    details = {"decision": decision.value, "void_requests": void_in is not None}
    await _step(session, dispute, Step.DECIDED, text=explanation, details=details, actor=actor, now=now)
    if void_in is not None:
        requests = await chosen_requests(session, dispute, void_only)
        voided = await void_requests(session, void_in, dispute=dispute, requests=requests, actor=actor, now=now)
        await _step(session, dispute, Step.REQUESTS_VOIDED, details=voided.as_dict(), actor=actor, now=now)
    return dispute


async def close_dispute(
    session: AsyncSession, *, dispute_id: str, text: str, actor: str, now: datetime
) -> Dispute:
    """Close a decided case. Raises DisputeStepRefusedError where it is not decided."""
    dispute = await locked_dispute(session, dispute_id)
    await _step(session, dispute, Step.CLOSED, text=text, actor=actor, now=now)
    return dispute


async def reopen_dispute(
    session: AsyncSession, *, dispute_id: str, text: str, actor: str, now: datetime
) -> Dispute:
    """Take a decided or closed case up again; the decision stays in the trail. What was voided stays voided."""
    dispute = await locked_dispute(session, dispute_id)
    details = {"decision": dispute.decision}
    await _step(session, dispute, Step.REOPENED, text=text, details=details, actor=actor, now=now)
    dispute.decision, dispute.explanation, dispute.decided_at = None, "", None
    await session.flush()
    return dispute


async def locked_dispute(session: AsyncSession, dispute_id: str) -> Dispute:
    """Return a case, locked until the transaction ends. Raises NotFoundError."""
    dispute = await session.scalar(select(Dispute).where(Dispute.id == dispute_id).with_for_update())
    if dispute is None:
        raise NotFoundError("dispute", dispute_id)
    return dispute


async def _step(
    session: AsyncSession,
    dispute: Dispute,
    step: Step,
    *,
    text: str = "",
    internal: bool = False,
    details: Mapping[str, Any] | None = None,
    actor: str,
    now: datetime,
) -> None:
    before = dispute.status
    dispute.status = status_after(before, step).value
    dispute.steps += 1
    _add_step(
        session,
        dispute,
        step,
        before=before,
        text=text,
        internal=internal,
        details=details or {},
        actor=actor,
        now=now,
    )
    await _record(session, dispute, step, before=before, details=details or {}, actor=actor, now=now)


def _add_step(
    session: AsyncSession,
    dispute: Dispute,
    step: Step,
    *,
    before: str | None,
    text: str,
    internal: bool = False,
    details: Mapping[str, Any],
    actor: str,
    now: datetime,
) -> None:
    session.add(
        DisputeStep(
            dispute_id=dispute.id,
            number=dispute.steps,
            at=now,
            author=actor,
            step=step.value,
            text=text,
            internal=internal,
            status_before=before,
            status_after=dispute.status,
            details=dict(details),
        )
    )


async def _record(
    session: AsyncSession,
    dispute: Dispute,
    step: Step,
    *,
    before: str | None,
    details: Mapping[str, Any],
    actor: str,
    now: datetime,
) -> None:
    await record_change(
        session,
        actor=actor,
        action=f"dispute.{step.value}",
        entity_type="dispute",
        entity_id=dispute.id,
        before=None if before is None else {"status": before},
        after={"status": dispute.status, "step": dispute.steps, **details},
        now=now,
    )
