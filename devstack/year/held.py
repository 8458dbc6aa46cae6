"""What the product holds at the end of the year: events, figures, invoices, money, and what gateways know."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import text

from devstack.year.model import DIGITS, ZERO
from devstack.year.world import World
from gateway_contract.records import decode_account_record
from gateway_contract.redis_names import account_record

_FIGURES = {
    "hourly": "SELECT account_id, sum(calls), sum(billable_units) FROM usage_hourly GROUP BY account_id",
    "daily": "SELECT account_id, sum(calls), sum(billable_units) FROM usage_daily GROUP BY account_id",
    "ledger": """
        SELECT account_id, sum(delta_units) FILTER (WHERE meter = ''),
            sum(delta_units) FILTER (WHERE meter = 'requests')
        FROM usage_ledger GROUP BY account_id""",
}
# what was delivered twice is there twice until ClickHouse merges: the event's id decides
_EVENTS = "SELECT account_id, uniqExact(event_id) FROM usage_events GROUP BY account_id"
_DEAD_LETTERS = "SELECT count() FROM usage_dead_letters FINAL"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldInvoice:
    """A final invoice, amounts in major units. `units`: billed requests on its lines; `paid`: in money."""

    number: str
    account: str
    currency: str
    status: str
    reason: str
    finalised_at: datetime
    due_at: datetime | None
    lines: Sequence[tuple[str, Decimal]]
    units: int
    discount: Decimal
    tax: Decimal
    total: Decimal
    credits: Decimal
    balance: Decimal
    due: Decimal
    credited: Decimal
    paid: Decimal
    paid_back: Decimal
    left: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldNote:
    """A credit note. `to_outside`: the part that is paid back in money."""

    number: str
    account: str
    total: Decimal
    to_outside: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """By account: stored events; `figures[source]`: calls and billed requests; what became of subscriptions."""

    events: Mapping[str, int]
    figures: Mapping[str, Mapping[str, tuple[int, int]]]
    invoices: Sequence[HeldInvoice]
    notes: Sequence[HeldNote]
    balances: Mapping[str, Decimal]
    credits: Mapping[str, Decimal]
    plans: Mapping[str, str]
    statuses: Mapping[str, Sequence[tuple[datetime, str]]]
    drafts: int = 0
    dead_letters: int = 0
    numbers: Sequence[str] = field(default_factory=tuple)


async def read_held(world: World, accounts: Mapping[str, str | None]) -> Held:
    """Read everything; `accounts`: the subscription of each account."""
    figures: dict[str, dict[str, tuple[int, int]]] = {}
    for source, statement in _FIGURES.items():
        async with world.sessions() as session:
            rows = (await session.execute(text(statement))).all()
        figures[source] = {account: (int(calls or 0), int(units or 0)) for account, calls, units in rows}
    listed = [one async for one in world.pages("/invoices")]
    final = [await world.ask("GET", f"/invoices/{one['id']}") for one in listed if one["status"] != "draft"]
    invoices = sorted((_invoice(one) for one in final), key=lambda one: one.number)
    notes = sorted([_note(one) async for one in world.pages("/credit-notes")], key=lambda one: one.number)
    return Held(
        events=_events(world),
        figures=figures,
        invoices=invoices,
        notes=notes,
        balances={account: await _balance(world, account) for account in accounts},
        credits={account: await _credits(world, account) for account in accounts},
        plans={account: await _plan(world, account) for account in accounts},
        statuses={account: await _statuses(world, sub) for account, sub in accounts.items() if sub},
        drafts=len(listed) - len(final),
        dead_letters=int(world.store.query(_DEAD_LETTERS, {})[0][0]),
        numbers=[one.number for one in invoices],
    )


def _events(world: World) -> dict[str, int]:
    rows = world.store.query(_EVENTS, {})
    return {str(row[0]): int(row[1]) for row in rows}


def _invoice(answer: Mapping[str, Any]) -> HeldInvoice:
    lines, payments = answer["lines"], answer["payments"]
    return HeldInvoice(
        number=answer["number"],
        account=answer["account_id"],
        currency=_currency(answer),
        status=answer["status"],
        reason=answer["reason"],
        finalised_at=datetime.fromisoformat(answer["finalised_at"]),
        due_at=None if answer["due_at"] is None else datetime.fromisoformat(answer["due_at"]),
        lines=[(one["description"], _amount(one["amount"])) for one in lines],
        units=sum(one["used_units"] or 0 for one in lines if one["kind"] == "usage"),
        discount=sum((_amount(one["amount"]) for one in answer["discounts"]), ZERO),
        tax=sum((_amount(one["amount"]) for one in answer["taxes"]), ZERO),
        total=_amount(answer["total"]),
        credits=_amount(answer["credits_applied"]),
        balance=_amount(answer["balance_applied"]),
        due=_amount(answer["amount_due"]),
        credited=_amount(answer["credited"]),
        paid=sum((_amount(one["amount"]) for one in payments if one["kind"] == "payment"), ZERO),
        paid_back=sum((_amount(one["amount"]) for one in payments if one["kind"] == "refund"), ZERO),
        left=_amount(answer["left"]),
    )


def _note(answer: Mapping[str, Any]) -> HeldNote:
    return HeldNote(
        number=answer["number"],
        account=answer["account_id"],
        total=_amount(answer["total"]),
        to_outside=_amount(answer["to_outside"]),
    )


def _currency(answer: Mapping[str, Any]) -> str:
    """Return the currency of an invoice's amounts; all that there are, where they are not of one."""
    amounts = [answer[name] for name in ("total", "amount_due", "left")]
    amounts += [one["amount"] for name in ("lines", "discounts", "taxes", "payments") for one in answer[name]]
    return " and ".join(sorted({one["currency"] for one in amounts}))


def _amount(money: Mapping[str, Any]) -> Decimal:
    return Decimal(money["amount_minor"]).scaleb(-DIGITS.get(money["currency"], 2))


async def _balance(world: World, account: str) -> Decimal:
    found = await world.ask("GET", f"/accounts/{account}/balance")
    return sum((_amount(one) for one in found["balances"]), ZERO)


async def _credits(world: World, account: str) -> Decimal:
    found = await world.ask("GET", f"/accounts/{account}/credits")
    return sum((_amount(one["available"]) for one in found["items"]), ZERO)


async def _plan(world: World, account: str) -> str:
    """Return the plan by which gateways serve the account's calls, '' where they refuse them."""
    found = await world.redis.get(account_record(account))
    grant = None if found is None else decode_account_record(found).products.get("weather")
    return "" if grant is None else grant.plan


async def _statuses(world: World, subscription: str) -> list[tuple[datetime, str]]:
    """Return when the subscription's status changed, from the audit log."""
    rows = [row async for row in world.pages(f"/audit?entity_type=subscription&entity_id={subscription}")]
    changes = []
    for row in reversed(rows):
        before, after = (row["before"] or {}).get("status"), (row["after"] or {}).get("status")
        if before and after and before != after:
            changes.append((datetime.fromisoformat(row["at"]), after))
    return changes
