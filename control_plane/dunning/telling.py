"""Queueing the mails of a case."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.dunning.model import ends_at
from control_plane.dunning.plans import plan_name, plan_names
from control_plane.dunning.records import facts_of
from control_plane.dunning.tables import DunningCase
from control_plane.dunning.unpaid import UnpaidInvoice, mail_values
from control_plane.notifications.model import MailKind
from control_plane.notifications.queue import queue_mail


async def tell(
    session: AsyncSession,
    case: DunningCase,
    *,
    kind: MailKind,
    cause: str,
    unpaid: Sequence[UnpaidInvoice],
    was: str = "",
    now: datetime,
) -> None:
    """Queue a mail of a case in this transaction, once for each cause."""
    names = await plan_names(session, case.subscription_id)
    await queue_mail(
        session,
        kind=kind,
        cause=cause,
        account_id=case.account_id,
        values={
            **mail_values(unpaid, now=now),
            "product": names.product,
            "plan": names.plan,
            "ends_at": ends_at(facts_of(case), now).isoformat(),
            "after": case.after,
            "free_plan": await plan_name(session, case.free_plan_version_id),
            "was": was,
        },
        now=now,
    )
