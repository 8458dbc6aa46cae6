"""What can be decided about a call. Values only; `answers` turns them into headers and bodies."""

from dataclasses import dataclass
from typing import TypeAlias

from gateway_contract.outcomes import Outcome
from kong_plugins.parts.callers import Caller
from kong_plugins.parts.limit_script import Limit


@dataclass(frozen=True, slots=True)
class LimitState:
    """How it stands with one limit. `reset_ms` until a slot frees, or until a refused call would be admitted."""

    limit: Limit
    remaining: int
    reset_ms: int


@dataclass(slots=True)
class Admitted:
    """`call_number` is 0 and `tightest` may be None where Redis did not take part.

    `would_refuse` is what a limit would have decided, had the plugin not been in `dry_run`.
    """

    caller: Caller
    call_number: int
    decided_at_ms: int
    tightest: LimitState | None
    would_refuse: "Refused | None" = None


@dataclass(frozen=True, slots=True)
class Refused:
    """`caller` is None where nobody was identified; `hit` is set where a limit was.

    `scopes` are what the call would have needed, where the key's scopes do not cover it.
    """

    outcome: Outcome
    caller: Caller | None = None
    decided_at_ms: int = 0
    hit: LimitState | None = None
    scopes: tuple[str, ...] = ()


Decision: TypeAlias = Admitted | Refused
