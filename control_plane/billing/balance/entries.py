"""Writing entries and sums together, for many accounts at once. Nothing here commits."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Cast, Text, cast, func, literal, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert as insert_or
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.balance.tables import AccountBalance
from control_plane.foundation.errors import ConflictError
from control_plane.foundation.ids import new_id
from control_plane.foundation.money import Money

AccountCurrency = tuple[str, str]

_COLUMNS = (
    "id",
    "account_id",
    "currency",
    "kind",
    "amount_minor",
    "sum_minor",
    "reason",
    "invoice_id",
    "credit_note_id",
    "idempotency_key",
    "author",
)
_ADD = text("""
INSERT INTO balance_entries (id, account_id, currency, kind, amount_minor, sum_minor, reason, invoice_id,
    credit_note_id, idempotency_key, author, created_at)
SELECT made.*, :now
FROM unnest(CAST(:id AS text[]), CAST(:account_id AS text[]), CAST(:currency AS text[]), CAST(:kind AS text[]),
    CAST(:amount_minor AS bigint[]), CAST(:sum_minor AS bigint[]), CAST(:reason AS text[]),
    CAST(:invoice_id AS text[]), CAST(:credit_note_id AS text[]), CAST(:idempotency_key AS text[]),
    CAST(:author AS text[])) AS made
""")


class BalanceTooLowError(ConflictError):
    """More would be taken from a balance than it holds."""

    def __init__(self, balance_minor: int, currency: str) -> None:
        super().__init__(
            "balance_too_low",
            f"The balance holds {Money(balance_minor, currency)}, and less than nothing it cannot hold.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEntry:
    """An entry to be added; see `BalanceEntry`."""

    account_id: str
    currency: str
    kind: str
    amount_minor: int
    author: str
    reason: str = ""
    invoice_id: str | None = None
    credit_note_id: str | None = None
    idempotency_key: str | None = None


async def lock_balances(
    session: AsyncSession, wanted: Collection[AccountCurrency], *, create: Collection[AccountCurrency] = ()
) -> dict[AccountCurrency, int]:
    """Lock balances until the transaction ends, and return them; what is not there, nor in `create`, is left out.

    The order is that of account id and currency for everybody, so nobody waits in a circle.
    """
    if create:
        accounts, currencies = zip(*sorted(create), strict=True)
        rows = (
            func.unnest(_texts(accounts), _texts(currencies))
            .table_valued("account_id", "currency")
            .render_derived()
        )
        new = select(rows.c.account_id, rows.c.currency, literal(0)).order_by(rows.c.account_id, rows.c.currency)
        await session.execute(
            insert_or(AccountBalance)
            .from_select(["account_id", "currency", "amount_minor"], new)
            .on_conflict_do_nothing()
        )
    if not wanted:
        return {}
    accounts, currencies = zip(*sorted(wanted), strict=True)
    rows = (
        func.unnest(_texts(accounts), _texts(currencies)).table_valued("account_id", "currency").render_derived()
    )
    of = tuple_(AccountBalance.account_id, AccountBalance.currency)
    statement = (
        select(AccountBalance.account_id, AccountBalance.currency, AccountBalance.amount_minor)
        .where(of.in_(select(rows.c.account_id, rows.c.currency)))
        .order_by(AccountBalance.account_id, AccountBalance.currency)
        .with_for_update()
    )
    found = await session.execute(statement)
    return {(account_id, currency): amount_minor for account_id, currency, amount_minor in found}


async def add_entries(
    session: AsyncSession, entries: Iterable[NewEntry], balances: Mapping[AccountCurrency, int], *, now: datetime
) -> list[str]:
    """Write entries, in this order, and the new sums of balances that the caller has locked; returns their ids.

    Raises:
        BalanceTooLowError: a balance would fall below nothing.
    """
    sums = dict(balances)
    rows: list[dict[str, Any]] = []
    for entry in entries:
        of = entry.account_id, entry.currency
        if sums[of] + entry.amount_minor < 0:
            raise BalanceTooLowError(sums[of], entry.currency)
        sums[of] += entry.amount_minor
        rows.append(
            {
                "id": new_id("bal", now),
                "account_id": entry.account_id,
                "currency": entry.currency,
                "kind": entry.kind,
                "amount_minor": entry.amount_minor,
                "sum_minor": sums[of],
                "reason": entry.reason,
                "invoice_id": entry.invoice_id,
                "credit_note_id": entry.credit_note_id,
                "idempotency_key": entry.idempotency_key,
                "author": entry.author,
            }
        )
    if rows:
        arrays = {name: [row[name] for row in rows] for name in _COLUMNS}
        await session.execute(_ADD, {**arrays, "now": now})
    changed = {of: amount for of, amount in sums.items() if amount != balances[of]}
    if changed:
        await _write_sums(session, changed)
    return [row["id"] for row in rows]


async def _write_sums(session: AsyncSession, sums: Mapping[AccountCurrency, int]) -> None:
    accounts, currencies = zip(*sums, strict=True)
    amounts = cast(list(sums.values()), ARRAY(BigInteger()))
    new = (
        func.unnest(_texts(accounts), _texts(currencies), amounts)
        .table_valued("account_id", "currency", "amount_minor")
        .render_derived()
    )
    await session.execute(
        update(AccountBalance)
        .where(AccountBalance.account_id == new.c.account_id, AccountBalance.currency == new.c.currency)
        .values(amount_minor=new.c.amount_minor)
        .execution_options(synchronize_session=False)
    )


def _texts(values: Collection[str]) -> Cast[Any]:
    return cast(list(values), ARRAY(Text()))
