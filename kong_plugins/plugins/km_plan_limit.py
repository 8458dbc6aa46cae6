"""km-plan-limit: is the caller whom km-key-auth identified within their plan?"""

import logging
from typing import Any

from gateway_contract import plugins
from gateway_contract.outcomes import Outcome
from kong_plugins.parts.attachment import attach
from kong_plugins.parts.decisions import Refused
from kong_plugins.parts.identity import shared_identity
from kong_plugins.parts.kong_request import ACCEPT_LANGUAGE, KongRequest, plain
from kong_plugins.parts.plugin_config import read_access_config
from kong_plugins.parts.plugin_schema import LIMIT_FIELDS, PRODUCT_FIELDS
from kong_plugins.parts.telling import is_admitted_before, tell_admitted, tell_refused
from kong_plugins.parts.worker import Worker, current_worker, start_worker, stop_worker

__all__ = ["Plugin", "Schema", "priority", "start_worker", "stop_worker", "version", "waits_for_kong"]

log = logging.getLogger(__name__)

version = "0.1.0"
priority = plugins.PRIORITIES[plugins.PLAN_LIMIT]
waits_for_kong = False
Schema = PRODUCT_FIELDS + LIMIT_FIELDS


class Plugin:
    """One attachment. PDK calls: three for a served request and for a refused one."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = read_access_config(config, limits_only=True)
        self._attachment = attach(self._config)

    def access(self, kong: Any) -> None:
        """Consume the caller's limits; the request goes on to the upstream only if admitted."""
        worker = current_worker()
        key_hash = shared_identity(kong)
        if key_hash is None:
            if is_admitted_before(kong, worker):
                return
            log.error("km-plan-limit needs km-key-auth on the same route: nobody was identified")
            self._refuse(kong, worker, Refused(Outcome.UNAVAILABLE))
            return
        decision = worker.gate.limit(key_hash, self._attachment, KongRequest(kong))
        if isinstance(decision, Refused):
            self._refuse(kong, worker, decision)
            return
        tell_admitted(kong, worker, decision, {})

    def _refuse(self, kong: Any, worker: Worker, refused: Refused) -> None:
        # the language is asked for here only: what km-key-auth read of the request costs a call to hand on
        accept_language = plain(kong.request.get_header(ACCEPT_LANGUAGE))
        tell_refused(kong, worker, refused, self._config, accept_language)
