"""A case's facts, and its line in the audit log."""

from datetime import datetime
from typing import cast

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.dunning.model import After, CaseFacts, CaseState
from control_plane.dunning.tables import DunningCase
from control_plane.foundation.audit import record_change


def facts_of(case: DunningCase) -> CaseFacts:
    """Return what of a case decides about its next step."""
    return CaseFacts(
        state=CaseState(case.state),
        after=cast("After", case.after),
        opened_at=case.opened_at,
        grace_until=case.grace_until,
        told=frozenset(case.told),
        last_notice_at=case.last_notice_at,
    )


async def record_case(
    session: AsyncSession, case: DunningCase, *, action: str, before: str | None, actor: str, now: datetime
) -> None:
    """Write the audit row of a step, at the subscription."""
    await record_change(
        session,
        actor=actor,
        action=action,
        entity_type="subscription",
        entity_id=case.subscription_id,
        before=None if before is None else {"case": case.id, "state": before},
        after={
            "case": case.id,
            "state": case.state,
            "after": case.after,
            "grace_until": case.grace_until.isoformat(),
            "told": list(case.told),
        },
        now=now,
    )
