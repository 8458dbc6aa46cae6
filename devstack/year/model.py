"""What a story consists of: steps that people take, calls, and the bills that they should lead to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

YEAR = 2032  # a leap year, and one that no event store has forgotten yet
BULK_UNITS = 1000
ZERO = Decimal("0.00")
DIGITS = {"JPY": 0, "KWD": 3}  # of the currencies that have no hundredths


def at(moment: str) -> datetime:
    """Return a moment of the year in UTC: `04-11`, `04-11T09`, `04-11T09:30`; `+01-05` is in the year after."""
    year = YEAR + 1 if moment.startswith("+") else YEAR
    day, _, time = moment.removeprefix("+").partition("T")
    return datetime.fromisoformat(f"{year}-{day}T{time or '00'}").replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Do:
    """A request to the REST API at a moment, and what it means in `words`.

    `{account}`, `{sub}` and whatever `save` has kept (name -> field of the answer) are filled into path and body.
    """

    at: datetime
    words: str
    method: str = "POST"
    path: str
    body: Mapping[str, Any] = field(default_factory=dict)
    save: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """Requests in one hour: calls of the bulk route count 1,000 each, the rest are single calls.

    They arrive when the hour is over, or at `arrives`. `free`: no invoice has them (free plans, trials). `lost`:
    they arrive when their hour is past counting. `voided`: a dispute took them out of the count later.
    """

    hour: datetime
    requests: int
    arrives: datetime | None = None
    words: str = ""
    free: bool = False
    lost: bool = False
    voided: bool = False
    refused: int = 0

    @property
    def arrives_at(self) -> datetime:
        return self.arrives or self.hour + timedelta(hours=1, minutes=2)


@dataclass(frozen=True, slots=True)
class Line:
    """A line that should be on a bill, and how it was reckoned by hand."""

    amount: Decimal
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """An invoice that a customer should get, day by day in UTC. Amounts in major units.

    `discount` is taken off, `tax` added; `credits` and `balance` pay; `due` is what is left to pay, of which a
    credit note takes `credited` off. `end`: what becomes of it.
    """

    on: datetime
    reason: str
    lines: Sequence[Line]
    discount: Decimal = ZERO
    tax: Decimal = ZERO
    credits: Decimal = ZERO
    balance: Decimal = ZERO
    credited: Decimal = ZERO
    total: Decimal
    due: Decimal
    end: str = "paid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A customer: `about` in one sentence, what happens, and what it should cost.

    `unpaid`: days on which this customer's payment does not come in, though it was due. `statuses`: the days on
    which the subscription's status should change. `notes`: what each credit note should be of; `paid_back`: what
    of it should leave in money.
    """

    name: str
    about: str
    account: Mapping[str, Any] = field(default_factory=dict)
    steps: Sequence[Do] = ()
    usage: Sequence[Use] = ()
    bills: Sequence[Bill] = ()
    unpaid: Sequence[datetime] = ()
    statuses: Sequence[tuple[datetime, str]] = ()
    notes: Sequence[Decimal] = ()
    paid_back: Decimal = ZERO
    plan_at_end: str = "starter"
    balance_at_end: Decimal = ZERO

    @property
    def currency(self) -> str:
        return str(self.account.get("currency", "USD"))


def figures(amount: Decimal, currency: str) -> str:
    """Return an amount with the currency's digits and no sign of it: `1,200.00`."""
    return f"{amount:,.{DIGITS.get(currency, 2)}f}"


def line(amount: str, why: str) -> Line:
    """Return a line; in `why`, ` * ` and ` - ` stand for the signs that calculations are printed with."""
    for typed, printed in ((" * ", " \N{MULTIPLICATION SIGN} "), (" - ", " \N{MINUS SIGN} ")):
        why = why.replace(typed, printed)
    return Line(Decimal(amount), why)


def bill(on: str, reason: str, *lines: Line, total: str, due: str | None = None, **more: str) -> Bill:
    """Return a bill; without `due` all of the total is due."""
    end = more.pop("end", "paid")
    amounts: dict[str, Decimal] = {name: Decimal(amount) for name, amount in more.items()}
    return Bill(
        on=at(on), reason=reason, lines=lines, total=Decimal(total), due=Decimal(due or total), end=end, **amounts
    )


def plain(plan: str, amount: str, *days: str) -> tuple[Bill, ...]:
    """Return the bills of months with nothing above the quota: no requests to pay, and the next month's price."""
    lines = (line("0.00", "within the quota"), line(amount, f"{plan}, the month that begins"))
    return tuple(bill(day, "period", *lines, total=amount) for day in days)


def use(hour: str, requests: int, **more: Any) -> Use:
    return Use(hour=at(hour), requests=requests, **more)


START = at("01-01")
END = at("+01-10")
