"""Numbers without gaps: taken under a row's lock that is kept until the commit, so none is lost by a rollback.

Whoever takes numbers waits for all who took some of the same series before: take them last in a transaction, and
for many documents at once.
"""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

INVOICES = "INV"
CREDIT_NOTES = "CN"
DIGITS = 6

_TAKE = text("""
INSERT INTO invoice_numbers AS numbers (series, next_number) VALUES (:series, 1 + :count)
ON CONFLICT (series) DO UPDATE SET next_number = numbers.next_number + :count
RETURNING next_number - :count
""")


async def take_numbers(session: AsyncSession, *, series: str, count: int) -> list[str]:
    """Return the next `count` numbers of a series, in their order: `INV-000001`, later `INV-1000000`."""
    if not count:
        return []
    first = (await session.execute(_TAKE, {"series": series, "count": count})).scalar_one()
    return [f"{series}-{number:0{DIGITS}}" for number in range(first, first + count)]
