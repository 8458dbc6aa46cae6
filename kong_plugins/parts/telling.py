"""Telling Kong what was decided, in as few calls as there can be."""

import logging
import time
from collections.abc import Mapping
from typing import Any

from gateway_contract import headers as names
from gateway_contract.api_keys import API_KEY_PATTERN, redact_api_keys
from gateway_contract.headers import ANONYMOUS, RECEIPT, REDACTED
from gateway_contract.outcomes import NOT_DECIDED, UNIDENTIFIED, Outcome
from gateway_contract.receipts import Place, verify_receipt
from kong_plugins.parts.answers import limit_headers
from kong_plugins.parts.decisions import Admitted, Refused
from kong_plugins.parts.kong_request import plain
from kong_plugins.parts.plugin_config import AccessConfig
from kong_plugins.parts.presented_key import PresentedKey
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
        names.ANONYMOUS,
    )
)
_ANONYMOUS_IN_REQUEST = ANONYMOUS.lower()
_ANY_KEY = "km_"

_decisions: dict[Outcome, metrics.Counter] = {
    outcome: metrics.counter("km_gateway_decisions_total", {"outcome": outcome.value}, help_text="decided calls")
    for outcome in Outcome
    if outcome not in NOT_DECIDED
}
_served = _decisions[Outcome.SERVED]
_attached_twice = metrics.counter(
    "km_gateway_attached_twice_total", help_text="calls that a second plugin of ours left alone"
)
_would_refuse = {
    outcome: metrics.counter(
        "km_gateway_would_refuse_total", {"outcome": outcome.value}, help_text="calls let through by `dry_run`"
    )
    for outcome in (
        Outcome.RATE_LIMITED,
        Outcome.QUOTA_EXCEEDED,
        Outcome.SPEND_CAP_REACHED,
        Outcome.CREDITS_USED_UP,
        Outcome.UNAVAILABLE,
    )
}
_warned_at = -WARN_EVERY_SECONDS


def tell_identity(kong: Any, admitted: Admitted) -> None:
    """Make the account the request's consumer, for Kong's log and other plugins."""
    kong.client.authenticate(admitted.caller.consumer, admitted.caller.credential)


def identity_headers(
    admitted: Admitted, presented: PresentedKey | Outcome, request_headers: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the upstream is told of the caller, and what of the caller's own headers is overwritten.

    That is the key, where it is to be hidden, and what differs from our names in `_` for `-` only. Kong lets both
    through, and upstreams that read headers as CGI variables (WSGI, Rack, PHP) take one for the other:
    `X_Km_Account` would say who calls in the place of `X-Km-Account`.
    """
    caller = admitted.caller
    headers: dict[str, Any] = caller.upstream_headers.copy()
    if not isinstance(presented, PresentedKey):
        headers[ANONYMOUS] = "true"
    elif _ANONYMOUS_IN_REQUEST in request_headers:
        headers[ANONYMOUS] = "false"
    if caller.config.hide_key:
        _hide_keys(headers, presented, request_headers)
    if "_" in "".join(request_headers):
        _cover_lookalikes(headers, request_headers)
    return headers


def hide_query_key(kong: Any, presented: PresentedKey | Outcome, config: AccessConfig) -> None:
    """Take a key that came in the query out of what the upstream sees of it."""
    if config.hide_key and isinstance(presented, PresentedKey) and not presented.header:
        kong.service.request.set_raw_query(presented.query_without)


def _hide_keys(
    headers: dict[str, Any], presented: PresentedKey | Outcome, request_headers: Mapping[str, Any]
) -> None:
    expected = 0
    if isinstance(presented, PresentedKey) and presented.header:
        headers[presented.header] = REDACTED
        expected = presented.text.startswith(_ANY_KEY)
    try:
        if "\n".join(request_headers.values()).count(_ANY_KEY) == expected:
            return
    except TypeError:
        pass  # a repeated header is a list
    for name, value in request_headers.items():
        if name in headers or name in _TOLD_TO_UPSTREAMS:
            continue
        if isinstance(value, list):
            if any(API_KEY_PATTERN.search(str(one)) for one in value):
                headers[name] = [redact_api_keys(str(one)) for one in value]
        elif API_KEY_PATTERN.search(str(value)):
            headers[name] = redact_api_keys(str(value))


def _cover_lookalikes(headers: dict[str, Any], request_headers: Mapping[str, Any]) -> None:
    ours = {name.lower(): value for name, value in headers.items()}
    for name in request_headers:
        if "_" in name:
            plain_name = name.replace("_", "-")
            if plain_name in _TOLD_TO_UPSTREAMS:
                headers[name] = ours.get(plain_name, "false" if plain_name == _ANONYMOUS_IN_REQUEST else REDACTED)


def tell_admitted(kong: Any, worker: Worker, admitted: Admitted, upstream_headers: dict[str, Any]) -> None:
    """Send the receipt on both ways, and the limits back."""
    caller = admitted.caller
    upstream_headers[RECEIPT], answer_receipt = worker.signer.sign_both(
        call_number=admitted.call_number, decided_at_ms=admitted.decided_at_ms, tail=caller.served_tail
    )
    answer_headers = limit_headers(caller.policy_header, admitted.tightest)
    answer_headers[RECEIPT] = answer_receipt
    if admitted.would_refuse is not None:
        answer_headers[names.WOULD_REFUSE] = _count_would_refuse(admitted.would_refuse)
    _served.inc()
    kong.service.request.set_headers(upstream_headers)
    kong.response.set_headers(answer_headers)


def _count_would_refuse(refused: Refused) -> str:
    """Return the outcome that the call would have had, and the limit's name: `rate_limited; limit=per-minute`."""
    _would_refuse[refused.outcome].inc()
    return (
        refused.outcome.value
        if refused.hit is None
        else f"{refused.outcome.value}; limit={refused.hit.limit.name}"
    )


def tell_refused(kong: Any, worker: Worker, refused: Refused, config: AccessConfig, accept_language: Any) -> None:
    """Answer the caller, in the language of the request's `Accept-Language`. The phase must return at once."""
    outcome, receipt = refused.outcome, ""
    _decisions[outcome].inc()
    if refused.caller is not None and outcome not in UNIDENTIFIED:
        receipt = worker.signer.sign_answer(decided_at_ms=refused.decided_at_ms, tail=refused.caller.tail(outcome))
    kong.response.exit(
        *worker.answers.refusal(refused, config=config, receipt=receipt, accept_language=accept_language)
    )


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
