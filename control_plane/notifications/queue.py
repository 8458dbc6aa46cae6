"""Which mails wait, and who sends them. `queue_mail` belongs to the caller's transaction; all else has its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.ids import new_id
from control_plane.notifications.model import GIVE_UP_AFTER, MAX_CUT_OFF, MailKind, MailState
from control_plane.notifications.tables import Mail

MAX_ERROR = 500

_CLAIM = text("""
UPDATE mails SET
    attempts = attempts + 1,
    cut_off = cut_off + (leased_until IS NOT NULL)::int,
    leased_until = :leased_until
WHERE id = (
    SELECT id FROM mails
    WHERE state = 'waiting' AND due_at <= :now AND (leased_until IS NULL OR leased_until <= :now)
    ORDER BY due_at, id
    LIMIT 1
    FOR UPDATE SKIP LOCKED
)
RETURNING id, kind, account_id, to_address, "values", sending, message_id, attempts, cut_off, leased_until
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedMail:
    """A mail in one process's hands until `leased_until`. `cut_off`: attempts without a known outcome."""

    id: str
    kind: str
    account_id: str | None
    to_address: str | None
    values: Mapping[str, Any]
    sending: int
    message_id: str | None
    attempts: int
    cut_off: int
    leased_until: datetime


async def queue_mail(
    session: AsyncSession,
    *,
    kind: MailKind,
    cause: str,
    values: Mapping[str, Any],
    account_id: str | None = None,
    to_address: str | None = None,
    now: datetime,
) -> bool:
    """Have a mail sent once this transaction commits; says whether it was new.

    A `cause` that is known already queues nothing, so the same news can be told any number of times. It goes to
    `to_address`, or to where the account's bills go when it is sent. `values`: JSON, as the kind's template takes
    them (see `samples`); never a key or a secret.
    """
    statement = (
        insert(Mail)
        .values(
            id=new_id("mail", now),
            cause=cause,
            kind=str(kind),
            account_id=account_id,
            to_address=to_address,
            values=dict(values),
            wanted_at=now,
            due_at=now,
            created_at=now,
        )
        .on_conflict_do_nothing(index_elements=["cause"])
        .returning(Mail.id)
    )
    return await session.scalar(statement) is not None


class MailQueue:
    """Mails that wait. Any number of processes may use it."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession], *, lease: timedelta) -> None:
        self._sessions = sessions
        self._lease = lease

    async def claim(self, now: datetime) -> ClaimedMail | None:
        """Take over the mail that is due longest; it is another's once the lease is over."""
        async with self._sessions() as session, session.begin():
            row = (await session.execute(_CLAIM, {"now": now, "leased_until": now + self._lease})).one_or_none()
        return None if row is None else ClaimedMail(**row._mapping)  # noqa: SLF001 - its public name

    async def note_message_id(self, mail: ClaimedMail, message_id: str) -> None:
        """Write down under which id a mail goes out, before it does."""
        await self._change(mail, message_id=message_id)

    async def close_stale(self, now: datetime) -> dict[str, int]:
        """Give up what is too old, and what was cut off too often; returns how many by state."""
        free = Mail.leased_until.is_(None) | (Mail.leased_until <= now)
        lost = Mail.leased_until.is_not(None) & (Mail.cut_off >= MAX_CUT_OFF)
        too_old = Mail.wanted_at <= now - GIVE_UP_AFTER
        return {
            MailState.UNKNOWN: await self._close(
                free & lost, MailState.UNKNOWN, "The connection was lost twice; it may have arrived."
            ),
            MailState.GIVEN_UP: await self._close(free & too_old, MailState.GIVEN_UP, None),
        }

    async def sent(self, mail: ClaimedMail, *, sent_to: str, subject: str, now: datetime) -> None:
        """The other side has taken it."""
        await self._change(
            mail,
            state=MailState.SENT,
            leased_until=None,
            sent_at=now,
            sent_to=sent_to,
            subject=subject,
            error=None,
        )

    async def refused(self, mail: ClaimedMail, error: str) -> None:
        """It will never be taken as it is."""
        await self._change(mail, state=MailState.REFUSED, leased_until=None, error=error[:MAX_ERROR])

    async def put_off(self, mail: ClaimedMail, error: str, *, until: datetime) -> None:
        """It was not sent, for sure; it is tried again later."""
        await self._change(mail, leased_until=None, due_at=until, error=error[:MAX_ERROR])

    async def lost(self, mail: ClaimedMail, error: str, *, until: datetime) -> None:
        """Nobody knows whether it was taken: it is sent once more, under the same Message-ID, or not at all."""
        if mail.cut_off >= MAX_CUT_OFF:
            await self._change(mail, state=MailState.UNKNOWN, leased_until=None, error=error[:MAX_ERROR])
        else:
            await self._change(
                mail, leased_until=None, cut_off=mail.cut_off + 1, due_at=until, error=error[:MAX_ERROR]
            )

    async def give_back(self, mail: ClaimedMail, error: str, *, until: datetime) -> None:
        """The server takes nothing at the moment: this was no attempt of the mail's."""
        await self._change(
            mail, leased_until=None, attempts=mail.attempts - 1, due_at=until, error=error[:MAX_ERROR]
        )

    async def waiting(self) -> tuple[int, datetime | None]:
        """Return how many mails wait, and since when the oldest does."""
        statement = select(func.count(), func.min(Mail.created_at)).where(Mail.state == MailState.WAITING.value)
        async with self._sessions() as session:
            count, oldest = (await session.execute(statement)).one()
        return count, oldest

    async def _change(self, mail: ClaimedMail, **values: object) -> None:
        # the lease tells whether it is still ours: another may have it by now
        statement = (
            update(Mail)
            .where(Mail.id == mail.id, Mail.state == MailState.WAITING.value)
            .where(Mail.leased_until == mail.leased_until, Mail.attempts == mail.attempts)
            .values(
                **{name: str(value) if isinstance(value, MailState) else value for name, value in values.items()}
            )
            .execution_options(synchronize_session=False)
        )
        async with self._sessions() as session, session.begin():
            await session.execute(statement)

    async def _close(self, which: ColumnElement[bool], state: MailState, error: str | None) -> int:
        values: dict[str, Any] = {"state": state.value, "leased_until": None}
        if error is not None:
            values["error"] = error
        statement = (
            update(Mail)
            .where(Mail.state == MailState.WAITING.value, which)
            .values(**values)
            .returning(Mail.id)
            .execution_options(synchronize_session=False)
        )
        async with self._sessions() as session, session.begin():
            return len((await session.execute(statement)).all())
