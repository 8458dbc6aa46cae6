"""Each component's own settings, made from the environment's; and the workers of this installation."""

import asyncio
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.billing.credits.due import CreditExpiryConfig, run_credit_expiry
from control_plane.billing.invoices.closing import ClosingConfig
from control_plane.billing.invoices.finalising import InvoiceTerms
from control_plane.billing.invoices.steps import ClosingRules
from control_plane.billing.invoices.worker import run_closing
from control_plane.billing.payments.overdue import OverdueConfig, run_overdue
from control_plane.billing.plan_moves.worker import PlanMovesConfig, run_plan_moves
from control_plane.billing.prepaid.worker import PrepaidDrawsConfig, run_prepaid_draws
from control_plane.billing.profiles.model import Seller
from control_plane.billing.what_if.worker import WhatIfConfig, run_what_if
from control_plane.entrypoints.notice_components import notice_workers
from control_plane.entrypoints.settings import Settings
from control_plane.entrypoints.stripe_components import stripe_config, stripe_workers
from control_plane.entrypoints.supervisor import Worker
from control_plane.foundation.clock import utc_now
from control_plane.gateway_sync.config import GatewayConfig, ProjectorConfig
from control_plane.gateway_sync.config_sync import run_config_sync
from control_plane.gateway_sync.hint_rounds import run_upgrade_hints
from control_plane.gateway_sync.projector import run_projector
from control_plane.reconciliation.worker import ReconciliationConfig, all_comparisons, run_reconciliations
from control_plane.subscriptions.advance import advance
from control_plane.usage.collect.catalog import CatalogWatch
from control_plane.usage.daily.retention import HourlyRetentionConfig
from control_plane.usage.ingest.rate_limit import RateLimit
from control_plane.usage.ingest.writer import EventIngest, IngestConfig
from control_plane.usage.requests.exports.model import DEFAULT_DIRECTORY, ExportConfig
from control_plane.usage.requests.exports.worker import run_exports
from control_plane.usage.rollups.sealing import SealingConfig
from control_plane.usage.sinks.model import SinksConfig
from control_plane.usage.sinks.worker import run_sinks
from control_plane.usage.store import EventStore, EventStoreConfig
from control_plane.usage.workers import UsageConfig, open_store_patiently, run_usage_workers

ADVANCE_SECONDS = 0.5
DEFAULT_SINK_DIRECTORY = Path("/var/lib/kong-monetize/sinks")


def usage_config(settings: Settings) -> UsageConfig:
    return UsageConfig(
        redis_url=settings.redis_url,
        event_store=event_store_config(settings),
        gateway_secrets=settings.gateway_secrets,
        shards=settings.usage_shards,
        kafka=settings.kafka,
        sealing=SealingConfig(
            lateness=timedelta(seconds=settings.hour_lateness_seconds),
            shipper_silence=timedelta(seconds=settings.shipper_silence_seconds),
        ),
        event_retention_days=settings.event_retention_days,
        hourly_retention=HourlyRetentionConfig(keep_days=settings.hourly_retention_days),
    )


def usage_catalog(settings: Settings, sessions: async_sessionmaker[AsyncSession]) -> CatalogWatch:
    """Return what reads usage lines outside the collector."""
    config = usage_config(settings)
    return CatalogWatch(
        secrets=config.gateway_secrets, sessions=sessions, event_retention_days=config.event_retention_days
    )


def event_store_config(settings: Settings) -> EventStoreConfig:
    return EventStoreConfig(
        dsn=settings.clickhouse_dsn,
        cluster=settings.clickhouse_cluster,
        insert_quorum=settings.clickhouse_insert_quorum,
    )


def export_config(settings: Settings) -> ExportConfig:
    """Return where exports go and what each may take."""
    return ExportConfig(
        directory=settings.export_dir or _beside_the_events(settings, "exports") or DEFAULT_DIRECTORY,
        keep=timedelta(hours=settings.export_keep_hours),
        max_rows=settings.export_max_rows,
        max_bytes=settings.export_max_mb * 1024**2,
    )


def sinks_config(settings: Settings) -> SinksConfig:
    """Return where sinks write to, and what lets them in elsewhere."""
    return SinksConfig(
        directory=settings.sink_dir or _beside_the_events(settings, "sinks") or DEFAULT_SINK_DIRECTORY,
        authorizations={name: value.get_secret_value() for name, value in settings.sink_authorizations.items()},
        allow_private=settings.sink_allow_private,
    )


def _beside_the_events(settings: Settings, name: str) -> Path | None:
    """Return a directory beside the embedded event store's, None where the store is a server."""
    if not event_store_config(settings).is_embedded:
        return None
    return Path(unquote(urlsplit(settings.clickhouse_dsn).path)).parent / name


def event_ingest(settings: Settings, sessions: async_sessionmaker[AsyncSession]) -> EventIngest:
    """Return the writer of reported events; it is answered while its `run` is running."""

    async def open_store(stop: asyncio.Event) -> EventStore | None:
        return await open_store_patiently(event_store_config(settings), stop=stop, max_threads=1)

    config = IngestConfig(event_retention_days=settings.event_retention_days)
    return EventIngest(sessions=sessions, open_store=open_store, config=config)


def ingest_limit(settings: Settings) -> RateLimit:
    return RateLimit(
        events_per_second=settings.ingest_events_per_second, burst_events=settings.ingest_burst_events
    )


def projector_config(settings: Settings) -> ProjectorConfig:
    return ProjectorConfig(
        database_url=settings.database_url, redis_url=settings.redis_url, public_url=settings.public_url
    )


def gateway_config(settings: Settings) -> GatewayConfig:
    return GatewayConfig(
        base_path=settings.kong_config,
        node_urls=settings.gateway_nodes,
        usage_spool_path=str(settings.usage_spool_path),
    )


def closing_config(settings: Settings) -> ClosingConfig:
    """Return when billing periods are closed, and what invoices say."""
    return ClosingConfig(
        rules=ClosingRules(
            grace=timedelta(hours=settings.invoice_grace_hours),
            max_wait=timedelta(hours=max(settings.invoice_grace_hours, settings.invoice_max_wait_hours)),
        ),
        terms=invoice_terms(settings),
    )


def invoice_terms(settings: Settings) -> InvoiceTerms:
    """Return who sells, and how long there is to pay."""
    seller = Seller(
        name=settings.seller_name.strip(),
        address_lines=tuple(line.strip() for line in settings.seller_address.split(";") if line.strip()),
        country=settings.seller_country,
        tax_id=settings.seller_tax_id.strip(),
        email=settings.seller_email.strip(),
        payment_note=settings.payment_note.strip(),
    )
    return InvoiceTerms(seller=seller, due_after=timedelta(days=settings.invoice_due_days))


def workers(settings: Settings, sessions: async_sessionmaker[AsyncSession]) -> list[Worker]:
    """Return all workers. Without gateway nodes there is nobody to push configuration to."""

    async def usage(stop: asyncio.Event) -> None:
        await run_usage_workers(config=usage_config(settings), sessions=sessions, stop=stop)

    async def projector(stop: asyncio.Event) -> None:
        await run_projector(projector_config(settings), stop)

    async def config_sync(stop: asyncio.Event) -> None:
        await run_config_sync(gateway_config(settings), database_url=settings.database_url, stop=stop)

    async def subscriptions(stop: asyncio.Event) -> None:
        await run_advance(sessions, stop=stop)

    async def upgrade_hints(stop: asyncio.Event) -> None:
        await run_upgrade_hints(database_url=settings.database_url, stop=stop)

    async def exports(stop: asyncio.Event) -> None:
        await run_exports(
            config=export_config(settings), event_store=event_store_config(settings), sessions=sessions, stop=stop
        )

    async def sinks(stop: asyncio.Event) -> None:
        await run_sinks(
            config=sinks_config(settings), event_store=event_store_config(settings), sessions=sessions, stop=stop
        )

    found = [
        Worker("usage", usage),
        Worker("exports", exports),
        Worker("sinks", sinks),
        Worker("projector", projector),
        Worker("subscriptions", subscriptions),
        *billing_workers(settings, sessions),
        *stripe_workers(settings, sessions),
        *notice_workers(settings, sessions),
        Worker("upgrade_hints", upgrade_hints),
    ]
    return [*found, Worker("gateway_config", config_sync)] if settings.gateway_nodes else found


def billing_workers(settings: Settings, sessions: async_sessionmaker[AsyncSession]) -> list[Worker]:
    """Return what bills, and what looks after money that was or should have been paid."""

    async def invoices(stop: asyncio.Event) -> None:
        await run_closing(config=closing_config(settings), sessions=sessions, stop=stop)

    async def overdue(stop: asyncio.Event) -> None:
        config = OverdueConfig(grace=timedelta(days=settings.overdue_grace_days))
        await run_overdue(config=config, sessions=sessions, stop=stop)

    async def credit_expiry(stop: asyncio.Event) -> None:
        config = CreditExpiryConfig(keep=timedelta(hours=settings.credit_write_off_hours))
        await run_credit_expiry(config=config, sessions=sessions, stop=stop)

    async def prepaid_draws(stop: asyncio.Event) -> None:
        await run_prepaid_draws(config=PrepaidDrawsConfig(), sessions=sessions, stop=stop)

    async def plan_moves(stop: asyncio.Event) -> None:
        await run_plan_moves(config=PlanMovesConfig(), sessions=sessions, stop=stop)

    async def what_if(stop: asyncio.Event) -> None:
        await run_what_if(config=WhatIfConfig(), sessions=sessions, stop=stop)

    async def reconciliation(stop: asyncio.Event) -> None:
        await run_reconciliations(
            config=ReconciliationConfig(),
            sessions=sessions,
            stop=stop,
            comparisons=all_comparisons(stripe_config(settings), sessions),
        )

    return [
        Worker("invoices", invoices),
        Worker("overdue", overdue),
        Worker("credit_expiry", credit_expiry),
        Worker("prepaid_draws", prepaid_draws),
        Worker("plan_moves", plan_moves),
        Worker("what_if", what_if),
        Worker("reconciliation", reconciliation),
    ]


async def run_advance(sessions: async_sessionmaker[AsyncSession], *, stop: asyncio.Event) -> None:
    """Let planned phases begin and subscriptions end when their time comes, until `stop`."""
    while not stop.is_set():
        async with sessions() as session, session.begin():
            done = await advance(session, now=utc_now())
        if not (done.accounts_told or done.phases_begun or done.subscriptions_ended or done.caps_renewed):
            try:
                await asyncio.wait_for(stop.wait(), ADVANCE_SECONDS)
            except TimeoutError:
                continue
