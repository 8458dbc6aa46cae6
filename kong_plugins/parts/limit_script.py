"""The limit script: its text, the command that calls it, and what its answer means.

Nothing in the command differs from call to call, so it is encoded once for each caller.

What the script cannot know: whether its answer is heard. Where a worker is killed after its script ran, Kong
repeats the event to the next worker, so the call is consumed twice, once under a number that is never logged. The
completeness check reports that number, and nobody is billed for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha1
from importlib.resources import files
from typing import Any

from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.records import (
    KeyRecord,
    Period,
    ProductGrant,
    Quota,
    SpendCap,
    Window,
)
from gateway_contract.redis_names import (
    account_versions,
    in_flight,
    key_counters,
    period_counters,
    window_state,
)
from kong_plugins.parts.rare_terms import pack_rare
from kong_plugins.parts.redis_connection import RedisRefusedError, encode_command
from kong_plugins.parts.redis_links import Link

_LUA = files("kong_plugins.parts") / "lua"
_PARTS = ("clock.lua", "windows.lua", "counters.lua", "caps.lua", "limit.lua")
SCRIPT = "\n".join((_LUA / name).read_text() for name in _PARTS)
SCRIPT_SHA = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
LOAD_COMMAND = encode_command("SCRIPT", "LOAD", SCRIPT)

# the first number of the script's answer
REFUSED, ADMITTED, STALE, WOULD_REFUSE = 0, 1, 2, 3
# the third number of a stale answer: no billing period in the records holds this moment, or another plan does
NO_PERIOD = 3

EXACT_UP_TO = 100  # LOG_MAX in the script

# what a limit counts: the words of RateLimit-Policy's `qu`, and one for money, which no header shows
CALLS = "requests"
CALLS_AT_A_TIME = "concurrent-requests"
MINOR_UNITS = "minor-units"


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of a caller.

    `window_ms` is None where it is no sliding window: a quota or cap lasts until the billing period ends,
    `quota_unit` CALLS_AT_A_TIME has no end. A `limit` in MINOR_UNITS is an amount of money: it is named where it
    refuses, and is no limit of calls to be shown in headers. `outcome` is that of calls which it refuses.
    """

    name: str
    limit: int
    window_ms: int | None
    quota_unit: str = CALLS
    outcome: Outcome = Outcome.RATE_LIMITED


# callers on one plan have the same limits, and a worker remembers tens of thousands of callers
_shared_limit = lru_cache(maxsize=4096)(Limit)


@dataclass(frozen=True, slots=True)
class LimitQuestion:
    """What the script is asked about one caller.

    `limits` are in the order in which the script numbers them, None where there is none; `shown` are all that a
    caller is told of in advance. `windows` are those that are windows, each with the name of its state.
    """

    limits: tuple[Limit | None, ...]
    shown: tuple[Limit, ...]
    windows: tuple[tuple[str, Limit], ...]
    keys: tuple[str, ...]
    arguments: tuple[str | int | bytes, ...]

    def encode(self) -> bytes:
        return encode_command("EVALSHA", SCRIPT_SHA, len(self.keys), *self.keys, *self.arguments)


def build_question(
    *,
    key: KeyRecord,
    account_version: int,
    grant: ProductGrant,
    product: str,
    units: int,
    route_name: str = "",
    dry_run: bool = False,
) -> LimitQuestion:
    """Put together what the script needs for calls of this key that cost `units` each.

    Raises:
        SpendCapError: the grant has a spend cap that cannot be kept on this route.
    """
    windows = _windows_of(key, grant)
    quotas, ceiling = _limits_of_quota(grant.quota), _ceiling(grant, key.mode)
    units_limit = _lowest([*quotas, *ceiling])
    quotas_here = quotas
    if grant.allowance is not None and grant.allowance.quota is not None:
        quotas_here = _limits_of_quota(grant.allowance.quota)
    quota_here = _lowest(quotas_here)
    key_quota = None
    if key.quota_units is not None:
        key_quota = _shared_limit("key-quota", key.quota_units, None, outcome=Outcome.QUOTA_EXCEEDED)
    spend_limit, at_a_time = _spend_limit(grant, key.mode), _limit_at_a_time(grant)
    keys = _keys(key, grant, product, [name for name, _ in windows])
    arguments: list[str | int | bytes] = [
        key.id,
        key.version,
        account_version,
        units,
        "" if units_limit is None else units_limit.limit,
        "" if key_quota is None else key_quota.limit,
        pack_rare(
            grant,
            route_name=route_name,
            units=units,
            has_spend_cap=spend_limit is not None,
            dry_run=dry_run,
            quota=None if quota_here is None else quota_here.limit,
            ceiling=ceiling[0].limit if ceiling else None,
        ),
        len(grant.periods),
    ]
    arguments += [edge for period in grant.periods for edge in (period.start_ms, period.end_ms)]
    arguments += [number for _, limit in windows for number in (limit.limit, limit.window_ms or 0)]
    named = tuple(limit for _, limit in windows)
    return LimitQuestion(
        limits=(*named, units_limit, key_quota, spend_limit, at_a_time, quota_here, *ceiling),
        shown=tuple(one for one in (*named, *quotas_here, *ceiling, key_quota, at_a_time) if one is not None),
        windows=windows,
        keys=keys,
        arguments=tuple(arguments),
    )


def ask_limit_script(link: Link, command: bytes, slot: int) -> list[int]:
    """Run the script once, where the account's slot is, and return its answer.

    A script that Redis does not know has not run: it is loaded and asked again. Nothing else is ever repeated.
    Raises what `RedisLink.ask_one` raises.
    """
    try:
        answer: Any = link.ask_one(command, slot)
    except RedisRefusedError as error:
        if not str(error).startswith("NOSCRIPT"):
            raise
        link.ask_one(LOAD_COMMAND, slot)
        answer = link.ask_one(command, slot)
    found: list[int] = answer
    return found


def narrowest_windows(windows: Sequence[Window]) -> list[Window]:
    """Return the windows with one for each length: a call is counted once in each."""
    narrowest: dict[int, Window] = {}
    for window in windows:
        known = narrowest.get(window.window_ms)
        if known is None or window.limit < known.limit:
            narrowest[window.window_ms] = window
    return list(narrowest.values())


def _windows_of(key: KeyRecord, grant: ProductGrant) -> tuple[tuple[str, Limit], ...]:
    """Return the plan's windows, then the key's, each with the name of its state."""
    windows = [(grant.subscription_id, "", window) for window in narrowest_windows(grant.windows)]
    windows += [(key.id, "key-", window) for window in narrowest_windows(key.windows)]
    return tuple(
        (
            window_state(key.account_id, scope, window.window_ms, key.mode, "calls"),
            _shared_limit(prefix + window_name(window.window_ms), window.limit, window.window_ms),
        )
        for scope, prefix, window in windows
    )


def _limits_of_quota(quota: Quota | None) -> list[Limit]:
    """Return what a quota bounds the units of a period by; the lowest is the one that refuses."""
    limits = []
    if quota is not None and quota.hard:
        limits.append(_shared_limit("quota", quota.units, None, outcome=Outcome.QUOTA_EXCEEDED))
    if quota is not None and quota.cap_units is not None:
        limits.append(_shared_limit("quota-cap", quota.cap_units, None, outcome=Outcome.QUOTA_EXCEEDED))
    return limits


def _ceiling(grant: ProductGrant, mode: Mode) -> list[Limit]:
    """Return the spend cap where it is a number of units. Calls with test keys are never billed."""
    cap = grant.spend_cap
    if cap is None or cap.ceiling_units is None or mode is not Mode.LIVE:
        return []
    return [_limit_of_cap(cap, cap.ceiling_units, CALLS)]


def _lowest(limits: Sequence[Limit]) -> Limit | None:
    return min(limits, key=lambda limit: limit.limit, default=None)


def _spend_limit(grant: ProductGrant, mode: Mode) -> Limit | None:
    """Return the spend cap where several prices count towards it. Calls with test keys are never billed."""
    cap = grant.spend_cap
    if cap is None or cap.ceiling_units is not None or not cap.prices or mode is not Mode.LIVE:
        return None
    return _limit_of_cap(cap, cap.amount_minor, MINOR_UNITS)


def _limit_of_cap(cap: SpendCap, limit: int, unit: str) -> Limit:
    if cap.prepaid:
        return _shared_limit("credits", limit, None, unit, Outcome.CREDITS_USED_UP)
    return _shared_limit("spend-cap", limit, None, unit, Outcome.SPEND_CAP_REACHED)


def _limit_at_a_time(grant: ProductGrant) -> Limit | None:
    found = grant.concurrency
    return None if found is None else _shared_limit("concurrent", found.limit, None, CALLS_AT_A_TIME)


def _keys(key: KeyRecord, grant: ProductGrant, product: str, windows: Sequence[str]) -> tuple[str, ...]:
    """Return the names of what the script touches: all of one account, so all in one slot of a cluster."""
    account = key.account_id
    keys = [account_versions(account)]
    keys += [
        period_counters(account, grant.subscription_id, period.start_ms, key.mode) for period in grant.periods
    ]
    if key.quota_units is not None:
        keys += [key_counters(account, key.id, period.start_ms) for period in grant.periods]
    keys += windows
    if grant.concurrency is not None:
        keys.append(in_flight(account, product, key.mode))
    return tuple(keys)


def is_over(periods: Sequence[Period], now_ms: int) -> bool:
    """Say whether records whose periods have all passed mean that the subscription is over.

    Records of a subscription that goes on hold the next period too, so a single one was the last. Where two are
    known, the second may be the last one or merely the last that was written: nobody can tell.
    """
    return len(periods) == 1 and now_ms >= periods[0].end_ms


_NAMES = {
    1_000: "per-second",
    60_000: "per-minute",
    3_600_000: "per-hour",
    86_400_000: "per-day",
}


def window_name(window_ms: int) -> str:
    """Return what a window is called in headers and problem bodies: `per-minute`, `per-30s`, `per-250ms`."""
    name = _NAMES.get(window_ms)
    if name is not None:
        return name
    return f"per-{window_ms // 1000}s" if window_ms % 1000 == 0 else f"per-{window_ms}ms"
