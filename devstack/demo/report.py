"""What the demo shows, as plain values, and the comparison that decides whether it passed."""

from dataclasses import dataclass, field

from devstack.demo.traffic import Refusal


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Calls of one account (or of nobody) to one endpoint with one answer, as the product counts them."""

    account: str
    endpoint: str
    status: int
    outcome: str
    calls: int


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    description: str
    formula: str
    amount: str


@dataclass(frozen=True, slots=True)
class InvoiceView:
    """One invoice preview. `billable_units` is the quantity that was rated."""

    account: str
    plan: str
    period: str
    lines: tuple[InvoiceLine, ...]
    total: str
    billable_units: int
    quota_units: int | None


@dataclass(frozen=True, slots=True)
class Check:
    """One figure, as the client counted it and as each part of the product holds it."""

    name: str
    client: int
    product: dict[str, int]

    @property
    def ok(self) -> bool:
        return all(value == self.client for value in self.product.values())


@dataclass(frozen=True, slots=True)
class StripeFigure:
    """An amount in cents: as we said it would be, and as Stripe has it."""

    name: str
    reckoned_minor: int
    invoiced_minor: int

    @property
    def ok(self) -> bool:
        return self.reckoned_minor == self.invoiced_minor


@dataclass(frozen=True, slots=True)
class Purchase:
    """A plan bought through Stripe. `began_seconds`: from paying to the subscription's beginning."""

    account: str
    began_seconds: float
    calls: int
    figures: tuple[StripeFigure, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything the demo shows."""

    requests: int
    broken: int
    seconds: float
    usage: tuple[UsageRow, ...]
    refusals: tuple[Refusal, ...]
    invoices: tuple[InvoiceView, ...]
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = field(default=())
    purchase: Purchase | None = None

    @property
    def wrong(self) -> int:
        """How many figures and amounts differ."""
        amounts = self.purchase.figures if self.purchase is not None else ()
        return sum(not check.ok for check in self.checks) + sum(not amount.ok for amount in amounts)

    @property
    def ok(self) -> bool:
        return self.broken == 0 and self.wrong == 0

    def accounts(self) -> list[str]:
        """Return account names in the order of first appearance."""
        return list(dict.fromkeys(row.account for row in self.usage))
