"""Credit notes that come from a decided dispute, kept apart from what its voids give back by themselves."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.errors import ConflictError, NotFoundError
from control_plane.usage.requests.disputes.model import Decision, DisputeStatus, Step
from control_plane.usage.requests.disputes.operations import locked_dispute
from control_plane.usage.requests.disputes.tables import DisputeStep

_DECIDED = frozenset({DisputeStatus.DECIDED, DisputeStatus.CLOSED})


class DisputeNotDecidedError(ConflictError):
    """The dispute is not decided in the account's favour."""

    def __init__(self, dispute_id: str) -> None:
        super().__init__(
            "dispute_not_decided",
            f"Dispute {dispute_id} is not decided, or was rejected: decide it first, or give the reason goodwill.",
        )


async def dispute_lowers_billed(session: AsyncSession, dispute_id: str, *, account_id: str) -> bool:
    """Say whether a note for a dispute must count against what was billed; locks the dispute until the commit.

    Where its requests were voided, less is due, and the next invoice gives the difference back by itself: a note
    gives the same money sooner. Where none was, nothing comes by itself, and the note is all that is given.

    Raises:
        NotFoundError: no such dispute of the account. DisputeNotDecidedError.
    """
    dispute = await locked_dispute(session, dispute_id)
    if dispute.account_id != account_id:
        raise NotFoundError("dispute", dispute_id)
    if dispute.status not in _DECIDED or dispute.decision == Decision.REJECTED:
        raise DisputeNotDecidedError(dispute_id)
    voided = select(DisputeStep.number).where(
        DisputeStep.dispute_id == dispute_id, DisputeStep.step == Step.REQUESTS_VOIDED
    )
    return bool(await session.scalar(select(voided.exists())))
