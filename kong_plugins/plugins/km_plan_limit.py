"""km-plan-limit: is the caller whom km-key-auth identified within their plan?"""

import logging
from typing import Any

from gateway_contract import plugins
from gateway_contract.outcomes import Outcome
from kong_plugins.parts.attachment import attach
from kong_plugins.parts.decisions import Refused
from kong_plugins.parts.identity import shared_identity
from kong_plugins.parts.kong_request import KongRequest
from kong_plugins.parts.plugin_config import read_access_config
from kong_plugins.parts.plugin_schema import LIMIT_FIELDS, PRODUCT_FIELDS
from kong_plugins.parts.telling import is_admitted_before, tell_admitted, tell_refused
from kong_plugins.parts.worker import current_worker, start_worker, stop_worker

__all__ = ["Plugin", "Schema", "priority", "start_worker", "stop_worker", "version", "waits_for_kong"]

log = logging.getLogger(__name__)

version = "0.1.0"
priority = plugins.PRIORITIES[plugins.PLAN_LIMIT]
waits_for_kong = False
Schema = PRODUCT_FIELDS + LIMIT_FIELDS


class Plugin:
    """One attachment. PDK calls: three for a served request, two for a refused one."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = read_access_config(config, limits_only=True)
        self._attachment = attach(self._config)

    def access(self, kong: Any) -> None:
        """Consume the caller's limits; the request goes on to the upstream only if admitted."""
        worker, product = current_worker(), self._config.api_product
        key_hash = shared_identity(kong)
        if key_hash is None:
            if is_admitted_before(kong, worker):
                return
            log.error("km-plan-limit needs km-key-auth on the same route: nobody was identified")
            tell_refused(kong, worker, Refused(Outcome.UNAVAILABLE), product)
            return
        decision = worker.gate.limit(key_hash, self._attachment, KongRequest(kong))
        if isinstance(decision, Refused):
            tell_refused(kong, worker, decision, product)
            return
        tell_admitted(kong, worker, decision, {})
