"""The usage event, version 1: one attributed call, as it is stored and exported.

Fields are added, never repurposed. **Never a header, a query string or a key.**
"""

from dataclasses import dataclass, field
from typing import Any

from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome

EVENT_VERSION = 1
OTHER_ENDPOINT = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageEvent:
    """One call, or one event that an application reported (outcome `reported`).

    `event_id` decides identity: from the receipt (`emitter-sequence`), or the request id where there is none.
    `occurred_at_ms` is the receipt's Redis time, or Kong's start of the request where there is none.
    Latencies in ms; `upstream_ms` is -1 when the upstream was not called. `bytes_in/out` include headers.
    `units` are quota units of the call, 0 where refused; `dimensions` named units that the upstream reported.
    An event without account is never billed. `flags` say what was noticed; `replayed`: the upstream says that it
    answered from memory, so the call is not billed where the first one is known.

    Added by the collector for those who read events, and never a ground for billing: `shipper` (the gateway
    node's, '' for reported events), `subscription_id` and `plan` (code) as Redis knew them. Reported events carry
    the CloudEvents `source` and `event_type`, and `properties`, texts that unique meters count.
    """

    event_id: str
    request_id: str
    occurred_at_ms: int
    account_id: str
    key_id: str
    mode: Mode
    product: str
    service: str
    route: str
    endpoint: str
    method: str
    path: str
    status: int
    outcome: Outcome
    units: int
    dimensions: dict[str, int] = field(default_factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0
    latency_ms: int = 0
    gateway_ms: int = 0
    upstream_ms: int = -1
    client_ip: str = ""
    emitter: str = ""
    call_number: int = 0
    flags: tuple[str, ...] = ()
    shipper: str = ""
    subscription_id: str = ""
    plan: str = ""
    source: str = ""
    event_type: str = ""
    properties: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the event as JSON-ready values: the export form."""
        return {
            "version": EVENT_VERSION,
            **{name: getattr(self, name) for name in self.__slots__},
            "mode": self.mode.value,
            "outcome": self.outcome.value,
            "flags": list(self.flags),
        }


def is_billable(
    *, account_id: str, mode: Mode, outcome: Outcome, status: int, statuses: range = range(500)
) -> bool:
    """Say whether a call is billed: live, served, and with a status the plan bills (below 500 by default)."""
    return bool(account_id) and mode is Mode.LIVE and outcome is Outcome.SERVED and status in statuses
