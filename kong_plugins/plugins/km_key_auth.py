"""km-key-auth: who is calling, and may they? Limits are km-plan-limit's, or another plugin's, affair."""

from typing import Any

from gateway_contract import plugins
from gateway_contract.headers import RECEIPT, REDACTED
from kong_plugins.parts.attachment import attach
from kong_plugins.parts.decisions import Refused
from kong_plugins.parts.identity import share_identity
from kong_plugins.parts.kong_request import ACCEPT_LANGUAGE, KongRequest, read_headers
from kong_plugins.parts.plugin_config import read_access_config
from kong_plugins.parts.plugin_schema import KEY_FIELDS, PRODUCT_FIELDS
from kong_plugins.parts.presented_key import read_presented_key
from kong_plugins.parts.telling import (
    RECEIPT_HEADER,
    hide_query_key,
    identity_headers,
    is_decided,
    tell_identity,
    tell_refused,
)
from kong_plugins.parts.worker import current_worker, start_worker, stop_worker

__all__ = ["Plugin", "Schema", "priority", "start_worker", "stop_worker", "version", "waits_for_kong"]

version = "0.1.0"
priority = plugins.PRIORITIES[plugins.KEY_AUTH]
waits_for_kong = False
Schema = PRODUCT_FIELDS + KEY_FIELDS


class Plugin:
    """One attachment. PDK calls: four for an identified request, two for a refused one.

    Reading the query for a key takes one more, and taking the key out of it another.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = read_access_config(config)
        self._attachment = attach(self._config)

    def access(self, kong: Any) -> None:
        """Identify the caller for the plugins after this one; consumes nothing."""
        worker, config = current_worker(), self._config
        headers = read_headers(kong)
        if RECEIPT_HEADER in headers and is_decided(kong, worker, headers[RECEIPT_HEADER]):
            return
        presented = read_presented_key(kong, headers, config)
        decision = worker.gate.authenticate(presented, self._attachment, KongRequest(kong))
        if isinstance(decision, Refused):
            tell_refused(kong, worker, decision, config, headers.get(ACCEPT_LANGUAGE))
            return
        if config.consumer:
            tell_identity(kong, decision)
        share_identity(kong, decision.caller.known.key_hash)
        hide_query_key(kong, presented, config)
        upstream = identity_headers(decision, presented, headers)
        # no receipt yet: whatever the caller sent under its name must not reach the upstream
        upstream[RECEIPT] = REDACTED
        kong.service.request.set_headers(upstream)
