"""Invoice previews as values. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from control_plane.billing.discounts.model import AppliedDiscount
from control_plane.billing.invoices.model import ChargeLine
from control_plane.billing.taxes.model import AppliedTax
from control_plane.foundation.period import BillingPeriod
from control_plane.rating.model import RatedLine, Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceLine:
    """A rated line and the version of a plan or add-on that it belongs to; `kind` as of invoice lines."""

    kind: str
    plan_code: str
    plan_name: str
    plan_version: int
    meter: str | None
    used_units: int | None
    unit: Unit | None
    line: RatedLine


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaProgress:
    """Quota units used, against the quota of the plan in force. `hard`: calls above it are refused."""

    used_units: int
    quota_units: int
    hard: bool

    @property
    def used_percent(self) -> Decimal:
        """Return the share used in per cent, cut to one decimal; above 100 in overage."""
        return Decimal(self.used_units * 1000 // self.quota_units) / 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPreview:
    """Why a period costs nothing: it is, or was, a trial up to `ends_at`.

    `lines`: what is charged in advance when the trial ends, none where the subscription ends with it.
    `total_minor`: what they come to after discounts and taxes. Usage is charged later, by the plan's prices.
    """

    ends_at: datetime
    goes_on: bool
    lines: tuple[InvoiceLine, ...]
    total_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoicePreview:
    """What a billing period costs with the usage counted so far, if nothing else changes.

    The lines are those of all invoices that bill the period, added up: fixed charges for the whole of it, planned
    changes among them; usage is what had been aggregated at `as_of`. Discounts and taxes are reckoned on all of
    them at once, so each invoice by itself may round them by a cent otherwise.
    """

    account_id: str
    account_name: str
    product_code: str
    product_name: str
    subscription_id: str
    period: BillingPeriod
    as_of: datetime
    currency: str
    lines: tuple[InvoiceLine, ...]
    subtotal_minor: int
    total_minor: int
    discounts: tuple[AppliedDiscount, ...] = ()
    taxes: tuple[AppliedTax, ...] = ()
    used_units: Mapping[str, int] = field(default_factory=dict)
    quota: QuotaProgress | None = None
    spend_cap_minor: int | None = None
    trial: TrialPreview | None = None

    @property
    def spend_cap_left_minor(self) -> int | None:
        """Return what the cap leaves for the rest of the period, None where there is no cap."""
        return None if self.spend_cap_minor is None else max(0, self.spend_cap_minor - self.subtotal_minor)


def preview_lines(lines: Iterable[ChargeLine]) -> tuple[InvoiceLine, ...]:
    """Return what is due as the lines of a preview."""
    return tuple(
        InvoiceLine(
            kind=line.kind.value,
            plan_code=line.plan_code,
            plan_name=line.plan_name,
            plan_version=line.plan_version,
            meter=line.meter,
            used_units=line.used_units,
            unit=line.unit,
            line=RatedLine(
                description=line.description,
                formula=line.formula,
                quantity=line.quantity,
                unit_amount=line.unit_amount,
                tiers=line.tiers,
                exact_amount=line.exact_amount,
                amount_minor=line.amount_minor,
                currency=line.currency,
                notes=line.notes,
            ),
        )
        for line in lines
    )
