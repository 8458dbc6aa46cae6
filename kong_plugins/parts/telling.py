"""Telling Kong what was decided, in as few calls as there can be."""

import logging
import time
from collections.abc import Mapping
from typing import Any

from gateway_contract import headers as names
from gateway_contract.headers import RECEIPT, REDACTED
from gateway_contract.outcomes import UNIDENTIFIED, Outcome
from gateway_contract.receipts import Place, verify_receipt
from kong_plugins.parts.answers import answer_to, limit_headers
from kong_plugins.parts.decisions import Admitted, Refused
from kong_plugins.parts.kong_request import plain
from kong_plugins.parts.worker import Worker
from kong_plugins.server import metrics

log = logging.getLogger(__name__)

RECEIPT_HEADER = RECEIPT.lower()
# Kong refuses `response.get_header` in the access phase; nginx's variable shows the same header there
ANSWER_RECEIPT_VARIABLE = "sent_http_x_km_receipt"
WARN_EVERY_SECONDS = 60.0
_TOLD_TO_UPSTREAMS = frozenset(
    name.lower()
    for name in (
        names.RECEIPT,
        names.CONSUMER_ID,
        names.CONSUMER_CUSTOM_ID,
        names.CONSUMER_USERNAME,
        names.CREDENTIAL_IDENTIFIER,
        names.ACCOUNT,
        names.PLAN,
        names.MODE,
    )
)

_decisions: dict[Outcome, metrics.Counter] = {
    outcome: metrics.counter("km_gateway_decisions_total", {"outcome": outcome.value}, help_text="decided calls")
    for outcome in Outcome
    if outcome is not Outcome.UNATTRIBUTED
}
_served = _decisions[Outcome.SERVED]
_attached_twice = metrics.counter(
    "km_gateway_attached_twice_total", help_text="calls that a second plugin of ours left alone"
)
_warned_at = -WARN_EVERY_SECONDS


def tell_identity(kong: Any, admitted: Admitted) -> None:
    """Make the account the request's consumer, for Kong's log and other plugins."""
    kong.client.authenticate(admitted.caller.consumer, admitted.caller.credential)


def identity_headers(admitted: Admitted, presented_in: str) -> dict[str, str]:
    """Return what the upstream is told of the caller; the key is overwritten where it is to be hidden."""
    caller = admitted.caller
    headers = caller.upstream_headers.copy()
    if caller.config.hide_key:
        headers[presented_in] = REDACTED
    return headers


def cover_lookalikes(upstream_headers: dict[str, str], request_headers: Mapping[str, Any]) -> None:
    """Overwrite the caller's headers that differ from ours in `_` for `-` only.

    Kong lets both through, and upstreams that read headers as CGI variables (WSGI, Rack, PHP) take one for the
    other: `X_Km_Account` would say who calls in the place of `X-Km-Account`.
    """
    if "_" not in "".join(request_headers):
        return
    ours = {name.lower(): value for name, value in upstream_headers.items()}
    for name in request_headers:
        if "_" in name:
            plain_name = name.replace("_", "-")
            if plain_name in _TOLD_TO_UPSTREAMS:
                upstream_headers[name] = ours.get(plain_name, REDACTED)


def tell_admitted(kong: Any, worker: Worker, admitted: Admitted, upstream_headers: dict[str, str]) -> None:
    """Send the receipt on both ways, and the limits back."""
    caller = admitted.caller
    upstream_headers[RECEIPT], answer_receipt = worker.signer.sign_both(
        call_number=admitted.call_number, decided_at_ms=admitted.decided_at_ms, tail=caller.served_tail
    )
    answer_headers = limit_headers(caller.policy_header, admitted.tightest)
    answer_headers[RECEIPT] = answer_receipt
    _served.inc()
    kong.service.request.set_headers(upstream_headers)
    kong.response.set_headers(answer_headers)


def tell_refused(kong: Any, worker: Worker, refused: Refused, product: str) -> None:
    """Answer the caller. The phase must return at once after this."""
    outcome, receipt = refused.outcome, ""
    _decisions[outcome].inc()
    if refused.caller is not None and outcome not in UNIDENTIFIED:
        receipt = worker.signer.sign_answer(decided_at_ms=refused.decided_at_ms, tail=refused.caller.tail(outcome))
    kong.response.exit(*answer_to(refused, product=product, receipt=receipt))


def is_decided(kong: Any, worker: Worker, request_receipt: Any) -> bool:
    """Say whether a plugin of ours has admitted this very request already: attached twice by mistake.

    The receipt in the request is not enough, since an upstream may show its headers to a caller, who sends them
    again. The answer's headers cannot be the caller's: they must hold the other half of the same receipt.
    """
    upstream = _verified(worker, request_receipt, Place.UPSTREAM)
    if upstream is None or upstream != _answer_event(kong, worker):
        return False
    _say_attached_twice(kong)
    return True


def is_admitted_before(kong: Any, worker: Worker) -> bool:
    """The same where the request's headers are not at hand."""
    if _answer_event(kong, worker) is None:
        return False
    _say_attached_twice(kong)
    return True


def _answer_event(kong: Any, worker: Worker) -> str | None:
    """Return the event id of the receipt that this request's answer carries so far, if any."""
    return _verified(worker, plain(kong.nginx.get_var(ANSWER_RECEIPT_VARIABLE)), Place.ANSWER)


def _verified(worker: Worker, text: Any, place: Place) -> str | None:
    if not isinstance(text, str) or not text.isascii():
        return None
    receipt = verify_receipt(text, place=place, secrets=worker.settings.secrets)
    return None if receipt is None else receipt.event_id


def _say_attached_twice(kong: Any) -> None:
    global _warned_at  # noqa: PLW0603 - once a minute for each process is enough
    _attached_twice.inc()
    if time.monotonic() - _warned_at < WARN_EVERY_SECONDS:
        return
    _warned_at = time.monotonic()
    kong.log.warn(  # noqa: G010 - Kong's name
        "km plugins are attached twice to one route: the second one consumes nothing; remove one of them"
    )
