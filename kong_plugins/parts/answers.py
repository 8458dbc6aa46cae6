"""From a decision to what Kong is told: headers of an admitted call, status, headers and body of a refused one.

This is the only place that knows HTTP statuses and problem bodies.
"""

import json
from functools import cache
from typing import Any

from gateway_contract import headers as names
from gateway_contract.outcomes import Outcome
from gateway_contract.receipts import refusal_note
from kong_plugins.parts.decisions import LimitState, Refused

PROBLEM_JSON = "application/problem+json"
RETRY_UNAVAILABLE_SECONDS = 1

# status, title, detail: what a caller may read
_PROBLEMS: dict[Outcome, tuple[int, str, str]] = {
    Outcome.NO_KEY: (401, "API key required", "Send your API key in the header named in the documentation."),
    Outcome.MALFORMED_KEY: (401, "Malformed API key", "This is no API key: check that it was copied whole."),
    Outcome.UNKNOWN_KEY: (401, "Unknown API key", "No such API key exists."),
    Outcome.AMBIGUOUS_KEY: (401, "More than one API key", "Send exactly one API key, in one header, once."),
    Outcome.KEY_REVOKED: (401, "API key revoked", "This API key was revoked."),
    Outcome.KEY_EXPIRED: (401, "API key expired", "This API key has expired."),
    Outcome.ACCOUNT_SUSPENDED: (403, "Account suspended", "The account of this API key is not active."),
    Outcome.NOT_SUBSCRIBED: (403, "Not subscribed", "The account has no subscription to this API."),
    Outcome.SCOPE_MISSING: (
        403,
        "Not allowed for this API key",
        "The API key's scopes do not cover this request.",
    ),
    Outcome.IP_NOT_ALLOWED: (403, "Address not allowed", "This API key may not be used from this address."),
    Outcome.NOT_ENTITLED: (403, "Not in your plan", "The plan does not include this endpoint."),
    Outcome.NO_SANDBOX: (403, "No sandbox", "This endpoint has no sandbox: use a live API key."),
    Outcome.RATE_LIMITED: (429, "Too many requests", "The request rate of the plan or of the API key is used up."),
    Outcome.QUOTA_EXCEEDED: (429, "Quota exceeded", "The quota of this billing period is used up."),
    Outcome.UNAVAILABLE: (503, "Temporarily unavailable", "The request could not be decided. Try again soon."),
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


def answer_to(refused: Refused, *, product: str, receipt: str) -> tuple[int, bytes, dict[str, str]]:
    """Return status, body and headers of the refusal. `receipt` is "" where nobody was identified."""
    outcome = refused.outcome
    status = _PROBLEMS[outcome][0]
    headers = {"Content-Type": PROBLEM_JSON, names.RECEIPT: receipt or refusal_note(outcome)}
    if status == 401:  # noqa: PLR2004 - the one status with a challenge
        headers["WWW-Authenticate"] = f'Key realm="{product}"'
    elif refused.hit is not None and refused.caller is not None:
        headers.update(limit_headers(refused.caller.policy_header, refused.hit))
        headers[names.RETRY_AFTER] = str(max(1, -(-refused.hit.reset_ms // 1000)))
        return status, _limit_body(refused, refused.hit), headers
    elif outcome is Outcome.UNAVAILABLE:
        headers[names.RETRY_AFTER] = str(RETRY_UNAVAILABLE_SECONDS)
    return status, _plain_body(outcome), headers


@cache
def _plain_body(outcome: Outcome) -> bytes:
    return _encode(_problem(outcome))


def _limit_body(refused: Refused, hit: LimitState) -> bytes:
    """Name the limit, the plan, and the plan that would fit."""
    body = _problem(refused.outcome)
    limit = hit.limit
    window = "the billing period" if limit.window_ms is None else f"{limit.window_ms / 1000:g} s"
    body["detail"] = f"The limit {limit.name} allows {limit.limit} in {window}."
    body["limit"] = {
        "name": limit.name,
        "limit": limit.limit,
        "remaining": hit.remaining,
        "window_seconds": None if limit.window_ms is None else limit.window_ms / 1000,
        "retry_after_seconds": max(1, -(-hit.reset_ms // 1000)),
    }
    grant = None if refused.caller is None else refused.caller.grant
    if grant is not None:
        body["plan"] = {"code": grant.plan, "name": grant.plan_name}
        upgrade = grant.upgrade
        body["upgrade"] = (
            None if upgrade is None else {"code": upgrade.plan, "name": upgrade.name, "url": upgrade.url}
        )
    return _encode(body)


def _problem(outcome: Outcome) -> dict[str, Any]:
    status, title, detail = _PROBLEMS[outcome]
    return {
        "type": f"urn:kong-monetize:problem:{outcome.value}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": outcome.value,
    }


def _encode(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
