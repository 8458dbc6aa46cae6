"""What of this installation tells customers things: mail, and dunning."""

import asyncio
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.dunning.model import DunningConfig
from control_plane.dunning.worker import run_dunning
from control_plane.entrypoints.settings import Settings
from control_plane.entrypoints.supervisor import Worker
from control_plane.notifications.model import Branding, SmtpConfig
from control_plane.notifications.worker import MailConfig, run_mail

DEFAULT_BRAND = "kong-monetize"


def mail_config(settings: Settings) -> MailConfig:
    """Return how mails look, and where they are handed in; nowhere without KM_SMTP_HOST."""
    branding = Branding(
        name=settings.brand_name.strip() or settings.seller_name.strip() or DEFAULT_BRAND,
        support_email=settings.support_email.strip() or settings.seller_email.strip(),
        payment_note=settings.payment_note.strip(),
    )
    if not settings.smtp_host:
        return MailConfig(branding=branding)
    smtp = SmtpConfig(
        host=settings.smtp_host,
        port=settings.smtp_port,
        tls=settings.smtp_tls,
        username=settings.smtp_username,
        password=settings.smtp_password.get_secret_value(),
        ca_file=settings.smtp_ca_file,
        timeout_seconds=settings.smtp_timeout_seconds,
        sender=settings.mail_from,
    )
    return MailConfig(smtp=smtp, branding=branding)


def dunning_config(settings: Settings) -> DunningConfig:
    """Return how long unpaid subscriptions are served, and what holds then."""
    return DunningConfig(
        grace=timedelta(days=settings.dunning_grace_days),
        after=settings.dunning_after,
        free_plans=settings.dunning_free_plan,
        by_plan=settings.dunning_by_plan,
        trial_notice=timedelta(days=settings.trial_notice_days),
    )


def notice_workers(settings: Settings, sessions: async_sessionmaker[AsyncSession]) -> list[Worker]:
    """Return what sends mails and what looks after unpaid subscriptions."""

    async def mail(stop: asyncio.Event) -> None:
        await run_mail(config=mail_config(settings), sessions=sessions, stop=stop)

    async def dunning(stop: asyncio.Event) -> None:
        await run_dunning(config=dunning_config(settings), sessions=sessions, stop=stop)

    return [Worker("mail", mail), Worker("dunning", dunning)]
