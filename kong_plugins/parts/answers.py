"""From a decision to what Kong is told: headers of an admitted call, status, headers and body of a refused one.

This is the only place that knows HTTP statuses and problem bodies. The RateLimit fields and the problem type of a
limit are those of draft-ietf-httpapi-ratelimit-headers-10, the challenges those of RFC 9110 and RFC 6750.
"""

import json
from typing import Any
from urllib.parse import urlsplit

from gateway_contract import headers as names
from gateway_contract.outcomes import Outcome
from gateway_contract.receipts import refusal_note
from kong_plugins.parts.decisions import LimitState, Refused
from kong_plugins.parts.languages import Messages, Wording
from kong_plugins.parts.limit_script import CALLS, MINOR_UNITS
from kong_plugins.parts.plugin_config import AccessConfig

PROBLEM_JSON = "application/problem+json"
QUOTA_EXCEEDED_TYPE = "https://iana.org/assignments/http-problem-types#quota-exceeded"
RETRY_UNAVAILABLE_SECONDS = 1

_STATUS: dict[Outcome, int] = {
    Outcome.NO_KEY: 401,
    Outcome.MALFORMED_KEY: 401,
    Outcome.UNKNOWN_KEY: 401,
    Outcome.AMBIGUOUS_KEY: 401,
    Outcome.KEY_REVOKED: 401,
    Outcome.KEY_EXPIRED: 401,
    Outcome.PAYMENT_REQUIRED: 402,
    Outcome.CREDITS_USED_UP: 402,
    Outcome.ACCOUNT_SUSPENDED: 403,
    Outcome.NOT_SUBSCRIBED: 403,
    Outcome.SUBSCRIPTION_PAUSED: 403,
    Outcome.SCOPE_MISSING: 403,
    Outcome.IP_NOT_ALLOWED: 403,
    Outcome.NOT_ENTITLED: 403,
    Outcome.NO_SANDBOX: 403,
    Outcome.RATE_LIMITED: 429,
    Outcome.QUOTA_EXCEEDED: 429,
    Outcome.SPEND_CAP_REACHED: 429,
    Outcome.UNAVAILABLE: 503,
}
_CHALLENGED = frozenset({401, 402, 403})
# RFC 6750, section 3.1; no error is named to those who sent nothing, nor where another token would not help
_BEARER_ERRORS = {
    Outcome.MALFORMED_KEY: "invalid_token",
    Outcome.UNKNOWN_KEY: "invalid_token",
    Outcome.KEY_REVOKED: "invalid_token",
    Outcome.KEY_EXPIRED: "invalid_token",
    Outcome.AMBIGUOUS_KEY: "invalid_request",
    Outcome.SCOPE_MISSING: "insufficient_scope",
}


def limit_headers(policy: str, state: LimitState | None) -> dict[str, str]:
    """Return the headers that say how it stands with a limit; none where there is no limit.

    X-RateLimit-Reset and `t` are whole seconds from now, rounded up, until a slot frees.
    """
    if state is None:
        return {names.RATE_LIMIT_POLICY: policy} if policy else {}
    limit, remaining = state.limit, state.remaining
    reset = str(-(-state.reset_ms // 1000))
    return {
        names.LIMIT: str(limit.limit),
        names.REMAINING: str(remaining),
        names.RESET: reset,
        names.RATE_LIMIT: f'"{limit.name}";r={remaining};t={reset}',
        names.RATE_LIMIT_POLICY: policy,
    }


class Answers:
    """Writes refusals. Bodies that depend on outcome and language alone are written once."""

    def __init__(self, messages: Messages) -> None:
        self._messages = messages
        self._bodies: dict[tuple[Outcome, str], tuple[bytes, str]] = {}

    def refusal(
        self, refused: Refused, *, config: AccessConfig, receipt: str, accept_language: Any
    ) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers. `receipt` is "" where nobody was identified."""
        outcome, hit = refused.outcome, refused.hit
        status = _STATUS[outcome]
        language = self._messages.choose(accept_language)
        headers = {
            "Content-Type": PROBLEM_JSON,
            "Vary": "Accept-Language",
            names.RECEIPT: receipt or refusal_note(outcome),
        }
        if status in _CHALLENGED:
            headers["WWW-Authenticate"] = _challenge(refused, config)
        elif hit is not None and refused.caller is not None:
            # an amount of money is no number of calls: X-RateLimit-Limit would mislead
            shown = None if hit.limit.quota_unit == MINOR_UNITS else hit
            headers.update(limit_headers(refused.caller.policy_header, shown))
            headers[names.RETRY_AFTER] = str(_retry_after_seconds(hit))
            wording = self._messages.wording(outcome, language)
            headers["Content-Language"] = wording.language
            return status, _limit_body(refused, hit, wording), headers
        elif outcome is Outcome.UNAVAILABLE:
            headers[names.RETRY_AFTER] = str(RETRY_UNAVAILABLE_SECONDS)
        body, headers["Content-Language"] = self._plain_body(outcome, language)
        return status, body, headers

    def _plain_body(self, outcome: Outcome, language: str) -> tuple[bytes, str]:
        """Return the body and the language in which it is written."""
        found = self._bodies.get((outcome, language))
        if found is None:
            wording = self._messages.wording(outcome, language)
            found = self._bodies[outcome, language] = _encode(_problem(outcome, wording)), wording.language
        return found


def _challenge(refused: Refused, config: AccessConfig) -> str:
    realm = f'realm="{config.api_product}"'
    # km-plan-limit reads no keys: it does not know how they may be sent
    if not config.bearer or config.limits_only:
        return f"Key {realm}"
    bearer = [f"Bearer {realm}"]
    error = _BEARER_ERRORS.get(refused.outcome)
    if error is not None:
        bearer.append(f'error="{error}"')
    if refused.scopes:
        bearer.append(f'scope="{" ".join(refused.scopes)}"')
    return f"Key {realm}, {', '.join(bearer)}"


def _limit_body(refused: Refused, hit: LimitState, wording: Wording) -> bytes:
    """Name the limit, the plan, and what would help: a plan that fits, or a higher cap."""
    limit = hit.limit
    body = _problem(refused.outcome, wording)
    body["type"] = QUOTA_EXCEEDED_TYPE
    body["violated-policies"] = [limit.name]
    body["limit"] = {
        "name": limit.name,
        "limit": limit.limit,
        "remaining": hit.remaining,
        "window_seconds": None if limit.window_ms is None else limit.window_ms / 1000,
        "retry_after_seconds": _retry_after_seconds(hit),
    }
    if limit.quota_unit != CALLS:
        body["limit"]["unit"] = limit.quota_unit
    grant = None if refused.caller is None else refused.caller.grant
    upgrade = None if grant is None else grant.upgrade
    if grant is not None:
        body["plan"] = {"code": grant.plan, "name": grant.plan_name}
    if refused.outcome is Outcome.SPEND_CAP_REACHED:
        # another plan does not lift a cap that the customer has set
        link = None if upgrade is None else _billing_page(upgrade.url)
        body["billing_url"] = link
        if link is not None:
            body["detail"] = wording.texts.get("detail_link", body["detail"]).format(url=link)
        return _encode(body)
    if grant is not None:
        body["upgrade"] = (
            None if upgrade is None else {"code": upgrade.plan, "name": upgrade.name, "url": upgrade.url}
        )
    variant = "detail_period" if refused.outcome is Outcome.QUOTA_EXCEEDED else "detail_at_once"
    if limit.window_ms is not None:
        variant = "detail_window"
    body["detail"] = wording.texts.get(variant, body["detail"]).format(
        name=limit.name, limit=limit.limit, seconds=f"{(limit.window_ms or 0) / 1000:g}"
    )
    return _encode(body)


def _problem(outcome: Outcome, wording: Wording) -> dict[str, Any]:
    return {
        "type": f"urn:kong-monetize:problem:{outcome.value}",
        "title": wording.texts["title"],
        "status": _STATUS[outcome],
        "detail": wording.texts["detail"],
        "code": outcome.value,
    }


def _billing_page(upgrade_url: str) -> str:
    """Return the portal's billing page, which stands beside the page of the upgrade hint."""
    parts = urlsplit(upgrade_url)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rpartition('/')[0]}/billing"


def _retry_after_seconds(hit: LimitState) -> int:
    return max(1, -(-hit.reset_ms // 1000))


def _encode(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
