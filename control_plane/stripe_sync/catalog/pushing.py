"""Which plan versions are laid at Stripe when, and what came of it.

What is wanted is read from the catalogue each time, never from a message: a version that was published while
nobody ran this is found as any other. One process pushes at a time.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

import structlog
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.tables import Plan, PlanVersion
from control_plane.foundation.audit import record_change
from control_plane.foundation.db import is_any_of
from control_plane.foundation.errors import ConflictError
from control_plane.foundation.sole_worker import sole_worker
from control_plane.stripe_sync.account import require_account
from control_plane.stripe_sync.catalog import metrics
from control_plane.stripe_sync.catalog.difference import Step
from control_plane.stripe_sync.catalog.push import VersionSteps, carry_out, look, product_digest
from control_plane.stripe_sync.catalog.tables import StripeProduct, StripePush
from control_plane.stripe_sync.catalog.wanted import OursHere
from control_plane.stripe_sync.client import StripeRefused, StripeUnavailable
from control_plane.stripe_sync.model import StripeContext

PUSH_LOCK: Final = 0x6B6D_7374_6361
FIRST_PAUSE: Final = timedelta(seconds=5)
LONGEST_PAUSE: Final = timedelta(minutes=10)
VERSIONS_A_ROUND: Final = 50
State = Literal["pushed", "waiting", "refused"]

_WANT = text("""
INSERT INTO stripe_pushes (plan_version_id, wanted_at, next_try_at)
SELECT id, :now, :now FROM plan_versions WHERE billed_by = 'stripe' AND status = 'published'
ON CONFLICT DO NOTHING
""")
_WANTED = text("""
SELECT version.id FROM plan_versions AS version
JOIN plans AS plan ON plan.id = version.plan_id
LEFT JOIN stripe_pushes AS push ON push.plan_version_id = version.id
WHERE version.billed_by = 'stripe' AND (version.status = 'published' OR push.state = 'pushed')
ORDER BY plan.code, version.version
""")

log = structlog.get_logger(__name__)


class PushRunningError(ConflictError):
    """Another process lays plans at Stripe right now."""

    def __init__(self) -> None:
        super().__init__("stripe_push_running", "Plans are being laid at Stripe right now: try again in a moment.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What came of a plan version. `waiting`: tried again by itself; `refused`: not before something changes.

    `steps` are what was done, or was to be done; `ours` the prices that our rating charges.
    """

    version_id: str
    name: str
    state: State
    steps: tuple[Step, ...] = ()
    ours: tuple[OursHere, ...] = ()
    problems: tuple[str, ...] = ()


async def push_what_waits(context: StripeContext) -> list[Pushed]:
    """Push the versions whose turn it is, those first that were wanted first; returns what came of each.

    Raises:
        AccountDiffersError, StripeUnavailable.
    """
    async with context.sessions() as session, session.begin():
        await session.execute(_WANT, {"now": context.now})
        due = await _waiting(session, context)
        due += await _renamed(session, context)
        refused = select(StripePush.plan_version_id).where(StripePush.state == "refused")
        metrics.REFUSED.set(len((await session.scalars(refused)).all()))
    if not due:
        return []
    await require_account(context)
    return [await push_version(context, version) for version in due]


async def push_now(context: StripeContext, *, actor: str, wait_seconds: float = 30.0) -> list[Pushed]:
    """Push everything on sale, with what was refused before, and mend what has drifted at Stripe.

    What was changed there stands in the audit log.

    Raises:
        PushRunningError, AccountDiffersError, StripeUnavailable.
    """
    async with _sole(context, wait_seconds):
        await require_account(context)
        async with context.sessions() as session, session.begin():
            await session.execute(_WANT, {"now": context.now})
        done = [await push_version(context, version) for version in await wanted_versions(context)]
    await _record(context, done, actor=actor)
    return done


async def _record(context: StripeContext, done: list[Pushed], *, actor: str) -> None:
    changed = {
        one.name: [f"{step.action} {step.thing} {step.name}" for step in one.steps if step.action != "none"]
        for one in done
    }
    if any(changed.values()):
        async with context.sessions() as session, session.begin():
            await record_change(
                session,
                actor=actor,
                action="stripe.plans_synced",
                entity_type="stripe_setup",
                entity_id=context.config.installation,
                before=None,
                after={name: steps for name, steps in changed.items() if steps},
                now=context.now,
            )


async def look_only(context: StripeContext) -> list[VersionSteps]:
    """Say what `push_now` would do, that is: in what Stripe differs from what is wanted there.

    Raises:
        StripeUnavailable, StripeRefused.
    """
    return await look(context, await wanted_versions(context))


async def wanted_versions(context: StripeContext) -> list[str]:
    """Return the plan versions that Stripe should have: those on sale and billed there, and those it had."""
    async with context.sessions() as session:
        return list((await session.scalars(_WANTED)).all())


async def push_version(context: StripeContext, version_id: str) -> Pushed:
    """Lay one plan version at Stripe and note what came of it; idempotent.

    Failures are noted, not raised: the worker tries again, later each time.
    """
    async with context.sessions() as session, session.begin():
        push = await session.get(StripePush, version_id)
        if push is None:
            push = StripePush(plan_version_id=version_id, wanted_at=context.now, next_try_at=context.now)
            session.add(push)
            await session.flush()
        attempt = push.attempts
    found: VersionSteps | None = None
    state: State = "refused"
    problems: tuple[str, ...] = ()
    try:
        [found] = await look(context, [version_id])
        problems = tuple(found.problems)
        if not problems:
            attempt += bool(found.to_do)
            found = await _carry_out(context, version_id, found, attempt)
            state = "pushed"
    except StripeRefused as refused:
        problems = (refused.message,)
    except StripeUnavailable as unavailable:
        metrics.PUSH_FAILURES.inc()
        state, problems = "waiting", (unavailable.sentence,)
        # under a key that is not spent, what is on its way still counts as the same request
        attempt -= bool(found is not None and found.to_do and not unavailable.spent_key)
    await _note(context, version_id, state=state, attempt=attempt, problems=problems)
    return Pushed(
        version_id=version_id,
        name=found.wanted.name if found else version_id,
        state=state,
        steps=tuple(found.steps) if found else (),
        ours=found.wanted.ours if found else (),
        problems=problems,
    )


async def _carry_out(context: StripeContext, version_id: str, found: VersionSteps, attempt: int) -> VersionSteps:
    try:
        await carry_out(context, found, attempt=attempt)
    except StripeRefused as refused:
        # it may have come there on another way since we looked
        [again] = await look(context, [version_id])
        if again.problems or again.to_do == found.to_do:
            raise
        log.info("refused at first", version=found.wanted.name, problem=refused.message)
        await carry_out(context, again, attempt=attempt)
    return found


async def _note(
    context: StripeContext, version_id: str, *, state: State, attempt: int, problems: tuple[str, ...]
) -> None:
    """What Stripe has stays there: a version that was pushed stays so, whatever a later try comes to."""
    async with context.sessions() as session, session.begin():
        push = await session.get_one(StripePush, version_id, with_for_update=True)
        was_pushed = push.state == "pushed"
        push.attempts = attempt
        push.problem = " ".join(problems) or None
        push.failures = push.failures + 1 if problems else 0
        if state == "pushed":
            push.pushed_at = context.now
        push.state = "pushed" if was_pushed else state
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(push.failures, 10)) if problems else timedelta(0)
        push.next_try_at = context.now + pause
    if problems:
        log.warning("not laid at Stripe", version=version_id, state=state, problem=" ".join(problems))


async def _waiting(session: AsyncSession, context: StripeContext) -> list[str]:
    statement = (
        select(StripePush.plan_version_id)
        .where(StripePush.state == "waiting", StripePush.next_try_at <= context.now)
        .order_by(StripePush.wanted_at, StripePush.plan_version_id)
        .limit(VERSIONS_A_ROUND)
    )
    return list((await session.scalars(statement)).all())


async def _renamed(session: AsyncSession, context: StripeContext) -> list[str]:
    """Return a pushed version of each plan that shows something else than when it was pushed."""
    plans = await session.execute(
        select(Plan.id, Plan.name, Plan.description, StripeProduct.digest).join(
            StripeProduct, StripeProduct.plan_id == Plan.id
        )
    )
    tax = context.config.automatic_tax
    changed = [row.id for row in plans if product_digest(row.name, row.description, tax=tax) != row.digest]
    if not changed:
        return []
    statement = (
        select(StripePush.plan_version_id)
        .join(PlanVersion, PlanVersion.id == StripePush.plan_version_id)
        .where(
            StripePush.state == "pushed",
            StripePush.next_try_at <= context.now,
            is_any_of(PlanVersion.plan_id, changed),
        )
        .order_by(PlanVersion.plan_id, PlanVersion.version)
        .limit(VERSIONS_A_ROUND)
    )
    return list((await session.scalars(statement)).all())


@asynccontextmanager
async def _sole(context: StripeContext, wait_seconds: float) -> AsyncIterator[None]:
    """Hold the lock of whoever pushes, waiting for it.

    Raises:
        PushRunningError: another held it for all that time.
    """
    deadline = asyncio.get_running_loop().time() + wait_seconds
    while True:
        async with sole_worker(context.sessions, PUSH_LOCK) as mine:
            if mine:
                yield
                return
        if asyncio.get_running_loop().time() > deadline:
            raise PushRunningError
        await asyncio.sleep(0.1)
