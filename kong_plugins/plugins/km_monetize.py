"""km-monetize: who is calling, may they, and within their plan? One access event does it all."""

from typing import Any

from gateway_contract import plugins
from kong_plugins.parts.attachment import attach
from kong_plugins.parts.decisions import Refused
from kong_plugins.parts.kong_request import ACCEPT_LANGUAGE, KongRequest, read_headers
from kong_plugins.parts.plugin_config import read_access_config
from kong_plugins.parts.plugin_schema import KEY_FIELDS, LIMIT_FIELDS, PRODUCT_FIELDS
from kong_plugins.parts.presented_key import read_presented_key
from kong_plugins.parts.telling import (
    RECEIPT_HEADER,
    hide_query_key,
    identity_headers,
    is_decided,
    tell_admitted,
    tell_identity,
    tell_refused,
)
from kong_plugins.parts.worker import current_worker, start_worker, stop_worker

__all__ = ["Plugin", "Schema", "priority", "start_worker", "stop_worker", "version", "waits_for_kong"]

version = "0.1.0"
priority = plugins.PRIORITIES[plugins.MONETIZE]
waits_for_kong = False
Schema = PRODUCT_FIELDS + KEY_FIELDS + LIMIT_FIELDS


class Plugin:
    """One attachment. PDK calls: four for a served request, two for a refused one.

    Reading the query for a key takes one more, and taking the key out of it another.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = read_access_config(config)
        self._attachment = attach(self._config)

    def access(self, kong: Any) -> None:
        """Decide the request; it goes on to the upstream only if admitted."""
        worker, config = current_worker(), self._config
        headers = read_headers(kong)
        if RECEIPT_HEADER in headers and is_decided(kong, worker, headers[RECEIPT_HEADER]):
            return
        presented = read_presented_key(kong, headers, config)
        decision = worker.gate.decide(presented, self._attachment, KongRequest(kong))
        if isinstance(decision, Refused):
            tell_refused(kong, worker, decision, config, headers.get(ACCEPT_LANGUAGE))
            return
        if config.consumer:
            tell_identity(kong, decision)
        hide_query_key(kong, presented, config)
        upstream = identity_headers(decision, presented, headers)
        tell_admitted(kong, worker, decision, upstream)
