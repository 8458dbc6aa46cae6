"""What the API is given to work with; put together in entrypoints, and in tests."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Protocol, cast

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.billing.invoices.finalising import InvoiceTerms
from control_plane.billing.profiles.model import Seller
from control_plane.dunning.model import DunningConfig
from control_plane.foundation.clock import utc_now
from control_plane.gateway_sync.config import GatewayConfig
from control_plane.gateway_sync.sweep import SweepReport
from control_plane.notifications.worker import MailConfig
from control_plane.stripe_sync.model import StripeContext
from control_plane.usage.collect.catalog import CatalogWatch
from control_plane.usage.ingest.rate_limit import RateLimiter
from control_plane.usage.ingest.writer import EventIngest
from control_plane.usage.requests.exports.model import ExportConfig
from control_plane.usage.store import EventStore

# Raises, or returns a problem in words, when the thing is not usable; returns None when it is.
Check = Callable[[], Awaitable[str | None]]


class History(Protocol):
    """The event store for reading requests."""

    def store(self) -> AbstractAsyncContextManager[EventStore]:
        """Lend the store to one search at a time; raises HistoryUnavailableError while it cannot be opened."""
        ...


@dataclass(frozen=True, slots=True)
class Ingest:
    """What takes reported events in: how many a token may send, and who writes them."""

    limiter: RateLimiter
    writer: EventIngest


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """`checks` decide readiness, by name: `postgres`, `redis`, `event_store`, and one for each worker.

    `rebuild` makes Redis anew; `gateway` is None where no base kong.yml is set, `ingest` where no writer runs,
    `usage_catalog` (by which dead letters are read again) where the gateway's secrets are not given.
    `invoice_terms` stand on invoices that are made final by hand, `pdf_fonts` print letters that our own lack.
    `stripe` is None where there is no key of Stripe's; `stripe_access.StripeGiven` answers that.
    """

    sessions: async_sessionmaker[AsyncSession]
    history: History
    rebuild: Callable[[datetime], Awaitable[SweepReport]]
    gateway: GatewayConfig | None = None
    ingest: Ingest | None = None
    usage_catalog: CatalogWatch | None = None
    exports: ExportConfig = field(default_factory=ExportConfig)
    invoice_terms: InvoiceTerms = field(default_factory=lambda: InvoiceTerms(seller=Seller()))
    pdf_fonts: tuple[Path, ...] = ()
    stripe: StripeContext | None = None
    mail: MailConfig = field(default_factory=MailConfig)
    dunning: DunningConfig = field(default_factory=DunningConfig)
    checks: Mapping[str, Check] = field(default_factory=dict)
    now: Callable[[], datetime] = utc_now


def _services(request: Request) -> Services:
    return cast("Services", request.app.state.services)


def _now(services: "Given") -> datetime:
    return services.now()


Given = Annotated[Services, Depends(_services)]
Now = Annotated[datetime, Depends(_now)]
