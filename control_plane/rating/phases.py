"""What ran, and what was used while it ran: what a billing period is rated from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseUsage:
    """What was used, by meter, while a plan version was in force: [starts_at, ends_at), None for no end yet.

    `add_ons`: how many of each version of an add-on were held beside it. Of a meter that does not add up, the one
    value of a plan version stands in any one of its phases.
    """

    plan_version_id: str
    starts_at: datetime
    ends_at: datetime | None
    units: Mapping[str, int] = field(default_factory=dict)
    add_ons: Mapping[str, int] = field(default_factory=dict)
