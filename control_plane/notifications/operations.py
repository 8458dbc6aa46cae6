"""What people do about mails. Nothing here commits."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.audit import record_change
from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.ids import new_id
from control_plane.notifications.model import MailKind, MailNotResendableError, MailState, parse_address
from control_plane.notifications.queries import mail_by_cause
from control_plane.notifications.queue import queue_mail
from control_plane.notifications.tables import Mail


async def resend_mail(session: AsyncSession, *, mail_id: str, actor: str, now: datetime) -> Mail:
    """Have a mail sent once more, whatever became of it; it goes to where the account's bills go now.

    Raises:
        NotFoundError: there is none. MailNotResendableError: it waits already.
    """
    mail = await session.get(Mail, mail_id, with_for_update=True, populate_existing=True)
    if mail is None:
        raise NotFoundError("mail", mail_id)
    if mail.state == MailState.WAITING:
        raise MailNotResendableError(mail_id)
    before = {"state": mail.state, "sending": mail.sending}
    mail.state = MailState.WAITING.value
    mail.sending += 1
    mail.message_id = None
    mail.attempts = mail.cut_off = 0
    mail.leased_until = mail.sent_at = mail.error = None
    mail.wanted_at = mail.due_at = now
    await session.flush()
    await _record(session, mail, action="mail.resent", before=before, actor=actor, now=now)
    return mail


async def queue_test_mail(session: AsyncSession, *, to_address: str, actor: str, now: datetime) -> Mail:
    """Queue a mail that shows whether mail is set up.

    Raises:
        ValidationFailedError: field `to`: no email address.
    """
    parse_address(to_address, field="to")
    cause = f"test:{new_id('tst', now)}"
    await queue_mail(
        session,
        kind=MailKind.TEST,
        cause=cause,
        values={"asked_at": now.isoformat()},
        to_address=to_address,
        now=now,
    )
    mail = await mail_by_cause(session, cause)
    await _record(session, mail, action="mail.test_queued", before=None, actor=actor, now=now)
    return mail


async def _record(
    session: AsyncSession,
    mail: Mail,
    *,
    action: str,
    before: dict[str, object] | None,
    actor: str,
    now: datetime,
) -> None:
    await record_change(
        session,
        actor=actor,
        action=action,
        entity_type="mail",
        entity_id=mail.id,
        before=before,
        after={"kind": mail.kind, "state": mail.state, "sending": mail.sending},
        now=now,
    )
