"""The limit script: its text, the command that calls it, and what its answer means.

Nothing in the command differs from call to call, so it is encoded once for each caller.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from typing import Any

from gateway_contract.modes import Mode
from gateway_contract.records import KeyRecord, Period, ProductGrant, Window
from gateway_contract.redis_names import account_versions, key_counters, period_counters, window_state
from kong_plugins.parts.redis_connection import RedisRefusedError, encode_command
from kong_plugins.parts.redis_links import Link

SCRIPT = (files("kong_plugins.parts") / "lua" / "limit.lua").read_text()
SCRIPT_SHA = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
LOAD_COMMAND = encode_command("SCRIPT", "LOAD", SCRIPT)

# the first number of the script's answer
REFUSED, ADMITTED, STALE = 0, 1, 2

EXACT_UP_TO = 100  # LOG_MAX in the script


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of a caller. `window_ms` is None for a quota, which lasts until the billing period ends."""

    name: str
    limit: int
    window_ms: int | None


@dataclass(frozen=True, slots=True)
class LimitQuestion:
    """What the script is asked about one caller.

    `limits` are in the order in which the script numbers them, None where there is none. `windows` are those of
    them that are windows, each with the name of its state.
    """

    limits: tuple[Limit | None, ...]
    windows: tuple[tuple[str, Limit], ...]
    keys: tuple[str, ...]
    arguments: tuple[str | int, ...]

    def encode(self) -> bytes:
        return encode_command("EVALSHA", SCRIPT_SHA, len(self.keys), *self.keys, *self.arguments)


def build_question(*, key: KeyRecord, account_version: int, grant: ProductGrant, units: int) -> LimitQuestion:
    """Put together what the script needs for calls of this key that cost `units` each."""
    account, mode, subscription = key.account_id, key.mode, grant.subscription_id
    windows = [(subscription, "", window) for window in narrowest_windows(grant.windows)]
    windows += [(key.id, "key-", window) for window in narrowest_windows(key.windows)]
    keys = [account_versions(account)]
    keys += [period_counters(account, subscription, period.start_ms, mode) for period in grant.periods]
    if key.quota_units is not None:
        keys += [key_counters(account, key.id, period.start_ms) for period in grant.periods]
    keys += [_state_name(account, scope, window, mode) for scope, _, window in windows]
    quota = grant.quota.units if grant.quota is not None and grant.quota.hard else None
    arguments: list[str | int] = [
        key.id,
        key.version,
        account_version,
        units,
        "" if quota is None else quota,
        "" if key.quota_units is None else key.quota_units,
        len(grant.periods),
    ]
    arguments += _flat_periods(grant.periods)
    arguments += [number for _, _, window in windows for number in (window.limit, window.window_ms)]
    named = [
        Limit(prefix + window_name(window.window_ms), window.limit, window.window_ms)
        for _, prefix, window in windows
    ]
    return LimitQuestion(
        limits=(
            *named,
            None if quota is None else Limit("quota", quota, None),
            None if key.quota_units is None else Limit("key-quota", key.quota_units, None),
        ),
        windows=tuple(zip(keys[len(keys) - len(named) :], named, strict=True)),
        keys=tuple(keys),
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


def _state_name(account: str, scope: str, window: Window, mode: Mode) -> str:
    kind = "buckets" if window.limit > EXACT_UP_TO else "log"
    return window_state(account, scope, window.window_ms, mode, kind)


def _flat_periods(periods: Sequence[Period]) -> list[str | int]:
    return [edge for period in periods for edge in (period.start_ms, period.end_ms)]
