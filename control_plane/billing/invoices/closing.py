"""Closing billing periods: invoices are drafted when a period ends and made final when its usage is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.discounts.founding import join_founders
from control_plane.billing.invoices.computing import compute
from control_plane.billing.invoices.finalising import InvoiceTerms, ReadyInvoice, finalise
from control_plane.billing.invoices.loading import claim_work
from control_plane.billing.invoices.progress import note_progress
from control_plane.billing.invoices.steps import ClosingRules, StepKind
from control_plane.billing.invoices.work import Work
from control_plane.billing.invoices.writing import write_drafts
from control_plane.billing.profiles.model import Seller


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosingConfig:
    """How billing closes periods, and what invoices say. `batch`: subscriptions of one transaction."""

    rules: ClosingRules = field(default_factory=ClosingRules)
    terms: InvoiceTerms = field(default_factory=lambda: InvoiceTerms(seller=Seller()))
    batch: int = 1_000
    pause_seconds: float = 1.0
    sweep_seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosingResult:
    """What a round did: subscriptions looked at, drafts that stand, invoices made final, periods that were billed.

    `waiting`: subscriptions whose grace is over, and whose usage is not sealed.
    """

    looked: int = 0
    drafts: int = 0
    finalised: int = 0
    closed: int = 0
    waiting: int = 0

    def __add__(self, other: "ClosingResult") -> "ClosingResult":
        """Return both together; `drafts` and `waiting` as they stood last."""
        return ClosingResult(
            looked=self.looked + other.looked,
            drafts=other.drafts,
            finalised=self.finalised + other.finalised,
            closed=self.closed + other.closed,
            waiting=other.waiting,
        )


async def close_due(
    session: AsyncSession, *, config: ClosingConfig, now: datetime, only: str | None = None
) -> ClosingResult:
    """Look at subscriptions that are due, at most a batch; call again, committed, while it looked at some.

    `only`: look at that one alone, if it is due.

    Atomic with the caller's transaction and idempotent: what was billed is read in it, under the lock of each
    subscription's row, so two workers or a repeated round bill nothing twice.
    """
    works = await claim_work(session, rules=config.rules, now=now, limit=config.batch, only=only)
    if not works:
        return ClosingResult()
    # before anything is billed, whoever subscribed the account
    await join_founders(session, [work.subscription_id for work in works], now=now)
    await compute(session, works, seller_country=config.terms.seller.country, now=now)
    made = await write_drafts(session, works, rules=config.rules, now=now)
    final = [work for work in works if work.invoice_id is not None and work.is_final]
    # progress before numbers: the lock of these is the last that is taken
    await note_progress(session, works, rules=config.rules, now=now)
    await finalise(session, _ready(final, now), terms=config.terms, now=now)
    return ClosingResult(
        looked=len(works),
        drafts=made - len(final),
        finalised=len(final),
        closed=sum(1 for work in works if work.step.kind is StepKind.CLOSE and not work.waits_for_usage),
        waiting=sum(1 for work in works if work.waits_for_usage),
    )


def _ready(works: Sequence[Work], now: datetime) -> list[ReadyInvoice]:
    return [
        ReadyInvoice(
            invoice_id=work.invoice_id or "",
            account_id=work.account_id,
            subscription_id=work.subscription_id,
            period_start=work.step.period.start,
            currency=work.currency,
            total_minor=work.amounts.total_minor,
            used_until=_used_until(work),
            usage_as_of=now,
            discounts=work.amounts.discounts,
        )
        for work in works
    ]


def _used_until(work: Work) -> datetime | None:
    if work.step.kind is StepKind.ADVANCE:
        return None
    return min(work.step.closes_at, work.timeline.ends_at or work.step.closes_at)
