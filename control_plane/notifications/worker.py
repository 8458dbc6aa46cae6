"""Sends mails that wait, one after the other, until it is stopped. Any number of processes may do so."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import utc_now
from control_plane.foundation.rounds import repeat
from control_plane.notifications import metrics
from control_plane.notifications.model import (
    Branding,
    MailState,
    SmtpConfig,
    message_id,
    parse_address,
    pause_after,
)
from control_plane.notifications.queue import ClaimedMail, MailQueue
from control_plane.notifications.recipients import Recipient, recipient_of
from control_plane.notifications.rendering import MailNotRenderedError, RenderedMail, render_mail
from control_plane.notifications.smtp import (
    MailPutOffError,
    MailRefusedError,
    OutcomeUnknownError,
    ServerUnavailableError,
    SmtpConnection,
    compose,
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MailConfig:
    """`smtp` None: mails are queued and not sent."""

    smtp: SmtpConfig | None = None
    branding: Branding = field(default_factory=Branding)
    poll_seconds: float = 2.0
    lease: timedelta = timedelta(minutes=5)
    # after the server was away: nothing is tried at all for so long
    server_pause: timedelta = timedelta(seconds=30)


async def run_mail(
    *,
    config: MailConfig,
    sessions: async_sessionmaker[AsyncSession],
    stop: asyncio.Event,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Send what waits until `stop`. Failures are counted and tried again; without `smtp` it only counts."""
    sender = MailSender(config=config, sessions=sessions, clock=clock)

    async def one_round() -> float:
        await sender.send_due(stop)
        await sender.measure()
        return config.poll_seconds

    await repeat("mail", one_round, stop=stop, failures=metrics.FAILURES)


class MailSender:
    """Takes mails from the queue and hands them to the server."""

    def __init__(
        self, *, config: MailConfig, sessions: async_sessionmaker[AsyncSession], clock: Callable[[], datetime]
    ) -> None:
        self._config = config
        self._sessions = sessions
        self._clock = clock
        self.queue = MailQueue(sessions, lease=config.lease)
        self._away_until: datetime | None = None

    async def send_due(self, stop: asyncio.Event | None = None) -> int:
        """Send what is due now; returns how many the server took. Ends early where the server takes nothing."""
        smtp = self._config.smtp
        if smtp is None or (self._away_until is not None and self._clock() < self._away_until):
            return 0
        for state, count in (await self.queue.close_stale(self._clock())).items():
            metrics.NOT_SENT.labels(state).inc(count)
        sent = 0
        async with SmtpConnection(smtp) as connection:
            while stop is None or not stop.is_set():
                mail = await self.queue.claim(self._clock())
                if mail is None:
                    break
                try:
                    sent += await self._send(connection, smtp, mail)
                except ServerUnavailableError as error:
                    metrics.PUT_OFF.labels("server").inc()
                    log.warning("the mail server takes nothing", error=str(error))
                    self._away_until = until = self._clock() + self._config.server_pause
                    await self.queue.give_back(mail, str(error), until=until)
                    break
        return sent

    async def measure(self) -> None:
        """Tell Prometheus how many mails wait."""
        count, oldest = await self.queue.waiting()
        metrics.WAITING.set(count)
        age = 0.0 if oldest is None else (self._clock() - oldest).total_seconds()
        metrics.OLDEST_SECONDS.set(max(0.0, age))

    async def _send(self, connection: SmtpConnection, smtp: SmtpConfig, mail: ClaimedMail) -> bool:
        try:
            recipient, rendered = await self._prepared(mail)
            name = mail.message_id or message_id(
                mail.id, sending=mail.sending, domain=parse_address(smtp.sender).domain
            )
            if mail.message_id is None:
                await self.queue.note_message_id(mail, name)
            message = compose(
                rendered, sender=smtp.sender, to_address=recipient.address, message_id=name, now=self._clock()
            )
            # shorter than the lease: nobody else takes it over meanwhile
            async with asyncio.timeout(self._config.lease.total_seconds() * 0.8):
                await connection.send(message)
        except (MailRefusedError, MailNotRenderedError) as error:
            metrics.NOT_SENT.labels(MailState.REFUSED).inc()
            log.warning("a mail is refused for good", mail=mail.id, kind=mail.kind, error=str(error))
            await self.queue.refused(mail, str(error))
        except MailPutOffError as error:
            metrics.PUT_OFF.labels("mail").inc()
            await self.queue.put_off(mail, str(error), until=self._later(mail))
        except (OutcomeUnknownError, TimeoutError) as error:
            metrics.PUT_OFF.labels("unknown").inc()
            log.warning("nobody knows whether a mail went out", mail=mail.id, kind=mail.kind, error=str(error))
            await self.queue.lost(mail, str(error) or "It took too long.", until=self._later(mail))
        else:
            await self.queue.sent(mail, sent_to=recipient.address, subject=rendered.subject, now=self._clock())
            metrics.SENT.labels(mail.kind).inc()
            return True
        return False

    async def _prepared(self, mail: ClaimedMail) -> tuple[Recipient, RenderedMail]:
        async with self._sessions() as session:
            recipient = await recipient_of(session, account_id=mail.account_id, to_address=mail.to_address)
        if isinstance(recipient, str):
            raise MailRefusedError(recipient)
        rendered = render_mail(
            mail.kind,
            mail.values,
            branding=self._config.branding,
            account=recipient.account,
            time_zone=recipient.time_zone,
        )
        return recipient, rendered

    def _later(self, mail: ClaimedMail) -> datetime:
        return self._clock() + pause_after(mail.attempts)
