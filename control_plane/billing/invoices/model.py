"""Invoices as values. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from control_plane.foundation.period import BillingPeriod
from control_plane.rating.model import TierUse, Unit


class LineKind(StrEnum):
    """What a line is for. The first two are charged in advance, each period and once in a subscription's life."""

    RECURRING = "recurring"
    SETUP_FEE = "setup_fee"
    USAGE = "usage"
    COMMITMENT = "commitment"
    CREDIT_PURCHASE = "credit_purchase"
    MANUAL = "manual"


IN_ADVANCE = frozenset({LineKind.RECURRING, LineKind.SETUP_FEE})


class Reason(StrEnum):
    """Why an invoice was made: see docs/invoices.md."""

    START = "start"
    PERIOD = "period"
    CHANGE = "change"
    FINAL = "final"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeLine:
    """What is due for one charge of a billing period; or, as a line of an invoice, what is charged of it there.

    `charge_key` names the charge within subscription and period: plan version and place of the price in it.
    Amounts, units and `covered_ms` (the time that it was charged for, of `period_ms`) of a charge's lines add up
    to what is due. `notes`: see `rating.explain`. `corrects`: of a line that follows others of its charge, what
    these came to.
    """

    charge_key: str
    kind: LineKind
    period: BillingPeriod
    plan_version_id: str
    plan_code: str
    plan_name: str
    plan_version: int
    currency: str
    description: str
    formula: str
    meter: str | None
    unit: Unit | None
    used_units: int | None
    quantity: int
    unit_amount: Decimal | None
    exact_amount: Decimal
    amount_minor: int
    covered_ms: int
    period_ms: int
    tiers: tuple[TierUse, ...] = ()
    notes: tuple[str, ...] = ()
    corrects: Mapping[str, Any] = field(default_factory=dict)

    @property
    def period_start(self) -> datetime:
        return self.period.start

    def details(self) -> dict[str, Any]:
        """Return what the line keeps beside its amounts, ready for JSON."""
        kept: dict[str, Any] = {
            "plan": self.plan_code,
            "plan_name": self.plan_name,
            "plan_version": self.plan_version,
            "covered_ms": self.covered_ms,
            "period_ms": self.period_ms,
        }
        if self.unit is not None:
            kept["unit"] = [self.unit.singular, self.unit.plural]
        if self.notes:
            kept["notes"] = list(self.notes)
        return {**kept, "corrects": dict(self.corrects)} if self.corrects else kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Billed:
    """What final invoices have charged for one charge of a period, all together; `first`: its first line."""

    first: ChargeLine
    amount_minor: int
    exact_amount: Decimal
    used_units: int
    quantity: int
    covered_ms: int


Charged = tuple[str, datetime, str]
"""A subscription, the start of a billing period, and a charge's key."""
