"""A round of billing: the subscriptions that it looks at, and what it finds of each."""

from dataclasses import dataclass, field
from datetime import datetime

from control_plane.billing.invoices.amounts import Amounts
from control_plane.billing.invoices.model import ChargeLine, Reason
from control_plane.billing.invoices.steps import Step
from control_plane.foundation.period import BillingPeriod
from control_plane.subscriptions.timeline import Timeline


@dataclass(frozen=True, slots=True)
class Draft:
    """An invoice that is not final yet. `digest`: of its lines."""

    invoice_id: str
    digest: str | None


@dataclass(slots=True, kw_only=True)
class Work:
    """One subscription in a round. `changed`: billed periods of which something else is due now, locked.

    `lines` are the differences of all periods concerned; `invoice_id` is set where an invoice is made of them.
    """

    timeline: Timeline
    currency: str
    billed_until: datetime
    step: Step
    changed: tuple[BillingPeriod, ...] = ()
    draft: Draft | None = None
    waits_for_usage: bool = False
    lines: list[ChargeLine] = field(default_factory=list)
    reason: Reason = Reason.PERIOD
    invoice_id: str | None = None
    is_final: bool = False
    amounts: Amounts = field(default_factory=lambda: Amounts(subtotal_minor=0))
    digest: str = ""

    @property
    def subscription_id(self) -> str:
        return self.timeline.subscription_id

    @property
    def account_id(self) -> str:
        return self.timeline.account_id

    @property
    def usage_periods(self) -> tuple[BillingPeriod, ...]:
        """The periods whose usage is billed, for the first time or again."""
        return self.changed if self.step.late else (*self.changed, self.step.period)
