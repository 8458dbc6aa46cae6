"""What the collector needs of the catalog, as it was last read."""

import structlog
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.catalog.model import ProductUsageRules
from control_plane.catalog.queries import event_retentions, product_usage_rules
from control_plane.usage.collect.batch_attribution import Attribution
from control_plane.usage.collect.endpoints import EndpointNames, Template
from control_plane.usage.collect.enrichment import KeptDays
from control_plane.usage.collect.product_rules import ProductRules
from control_plane.usage.reads import endpoint_templates
from control_plane.usage.retention import MINIMUM_DAYS

log = structlog.get_logger(__name__)


class CatalogWatch:
    """Keeps endpoint names, rules and retentions as the catalog has them, read anew before each batch."""

    def __init__(
        self,
        *,
        secrets: tuple[bytes, ...],
        sessions: async_sessionmaker[AsyncSession],
        event_retention_days: int = MINIMUM_DAYS,
    ) -> None:
        self._secrets = secrets
        self._sessions = sessions
        self._event_retention_days = event_retention_days
        self._kept = KeptDays(default_days=event_retention_days)
        self._templates: dict[str, tuple[Template, ...]] = {}
        self._rules: dict[str, ProductUsageRules] = {}
        self._attribution = Attribution(secrets=secrets, endpoints=EndpointNames())

    def attribution(self) -> Attribution:
        """Return the attribution under the catalog as it was last read."""
        return self._attribution

    def kept(self) -> KeptDays:
        """Return how long events are kept under the catalog as it was last read."""
        return self._kept

    async def refresh(self) -> None:
        """Read the catalog; without a change the names (and their cache) stay."""
        async with self._sessions() as session:
            templates = await endpoint_templates(session)
            rules = await product_usage_rules(session)
            retentions = await event_retentions(session)
        self._kept = KeptDays(default_days=self._event_retention_days, by_plan=retentions)
        if (templates, rules) != (self._templates, self._rules):
            self._templates, self._rules = templates, rules
            self._attribution = Attribution(
                secrets=self._secrets, endpoints=EndpointNames(templates), rules=ProductRules(rules)
            )
            log.info("read the endpoints and rules of API products", products=len(templates))
