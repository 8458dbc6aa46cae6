"""Credits as values: kinds, the order in which grants are used, what is asked of a new grant. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Protocol, TypeVar

from control_plane.catalog.prices import canonical_amount
from control_plane.foundation.errors import ConflictError, NotFoundError, ValidationFailedError
from control_plane.foundation.money import Money, minor_units
from control_plane.rating.words import format_amount

MAX_AMOUNT_MINOR = 10**12
MAX_PRIORITY = 1000
DEFAULT_PRIORITY = 100
MAX_REASON_LENGTH = 500
MAX_REFERENCE_LENGTH = 200
MAX_HOLD = timedelta(days=31)
NEVER = datetime.max.replace(tzinfo=UTC)


class GrantKind(StrEnum):
    """`paid`: the account bought it; `promotional`: it was given."""

    PAID = "paid"
    PROMOTIONAL = "promotional"


class EntryKind(StrEnum):
    """What an entry of the ledger did to its grant."""

    GRANT = "grant"
    RESERVE = "reserve"
    RELEASE = "release"
    DRAW = "draw"
    RETURN = "return"
    EXPIRE = "expire"
    REVOKE = "revoke"


class ReservationStatus(StrEnum):
    HELD = "held"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED = "expired"


class GrantNotFoundError(NotFoundError):
    """No such credit grant."""

    def __init__(self, grant_id: str) -> None:
        super().__init__("credit_grant", grant_id)


class ReservationNotFoundError(NotFoundError):
    """No such reservation of credits."""

    def __init__(self, reservation_id: str) -> None:
        super().__init__("credit_reservation", reservation_id)


class CreditsUsedUpError(ConflictError):
    """Less is left of an account's credits than was asked for; nothing was taken."""

    def __init__(self, *, asked: Money, left: Money) -> None:
        super().__init__(
            "credits_used_up",
            f"{_text(asked)} were asked for, and {_text(left)} of the account's credits are left: grant or sell "
            "more, or ask for less.",
        )


class ReferenceTakenError(ConflictError):
    """The reference was used for something else."""

    def __init__(self, reference: str) -> None:
        super().__init__(
            "reference_taken", f"The reference {reference} was used with other values: take another one."
        )


class ReservationOverError(ConflictError):
    """The reservation was settled, released or has expired, and cannot end in another way."""

    def __init__(self, reservation_id: str, status: str) -> None:
        super().__init__("credit_reservation_over", f"Reservation {reservation_id} is {status} already.")


class Usable(Protocol):
    """What the order of use looks at; both a row and a plain value have it."""

    id: str
    kind: str
    priority: int
    expires_at: datetime | None
    created_at: datetime
    remaining_minor: int


Grant = TypeVar("Grant", bound=Usable)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditSum:
    """An account's credits of one currency at a moment: usable now, held by reservations, beginning later."""

    currency: str
    available_minor: int
    reserved_minor: int
    later_minor: int


def free_beside(left: Mapping[str | None, int], undrawn: Mapping[str, int], *, api_product_id: str | None) -> int:
    """Return how much can be held for an API product (None: for none) beside what is about to be drawn.

    `left`: credits by the product that alone can use them (None: any), at least of the products asked about.
    `undrawn` by product. Usage of another product uses that product's own credits first.
    """
    taken = sum(
        amount if product == api_product_id else max(0, amount - left[product])
        for product, amount in undrawn.items()
    )
    own = 0 if api_product_id is None else left[api_product_id]
    return max(0, left[None] + own - taken)


def in_order_of_use(grants: Iterable[Grant]) -> list[Grant]:
    """Return grants in the order in which they are used.

    The lowest priority first; then what expires soonest; then what was given before what was paid for; then the
    oldest.
    """
    return sorted(
        grants,
        key=lambda grant: (
            grant.priority,
            NEVER if grant.expires_at is None else grant.expires_at,
            grant.kind != GrantKind.PROMOTIONAL,
            grant.created_at,
            grant.id,
        ),
    )


def parts_of(grants: Iterable[Grant], amount_minor: int) -> list[tuple[Grant, int]]:
    """Return how much of which grant makes up an amount, in order of use; less where the grants are too small."""
    parts = []
    for grant in in_order_of_use(grants):
        part = min(grant.remaining_minor, amount_minor)
        if part > 0:
            parts.append((grant, part))
            amount_minor -= part
    return parts


def check_amount(amount_minor: int, field: str = "amount") -> int:
    """Return a positive amount that can be kept.

    Raises:
        ValidationFailedError: zero, negative or too large.
    """
    if not 0 < amount_minor <= MAX_AMOUNT_MINOR:
        raise ValidationFailedError(field, f"must be above 0 and at most {MAX_AMOUNT_MINOR} minor units")
    return amount_minor


def read_amount(amount: str, currency: str, *, field: str = "amount") -> int:
    """Return an amount of major units, `"250.00"`, in minor units; 0 is one.

    Raises:
        ValidationFailedError: not an amount of that currency, or too large.
    """
    text = canonical_amount(amount, currency=currency, field=field)
    digits = minor_units(currency)
    if len(text.partition(".")[2]) > digits:
        raise ValidationFailedError(field, f"{currency} has {digits} digits after the point")
    amount_minor = int(Decimal(text).scaleb(digits))
    if amount_minor > MAX_AMOUNT_MINOR:
        raise ValidationFailedError(field, f"must be at most {_text(Money(MAX_AMOUNT_MINOR, currency))}")
    return amount_minor


def _text(amount: Money) -> str:
    return format_amount(amount.as_decimal(), amount.currency)


def check_term(starts_at: datetime, expires_at: datetime | None, now: datetime) -> None:
    """Check when a grant can be used.

    Raises:
        ValidationFailedError: it would expire before it begins, or has expired.
    """
    if expires_at is not None and expires_at <= starts_at:
        raise ValidationFailedError("expires_at", "must lie after starts_at")
    if expires_at is not None and expires_at <= now:
        raise ValidationFailedError("expires_at", "must lie in the future")


def next_look(
    *, starts_at: datetime, expires_at: datetime | None, keep: timedelta, after: datetime
) -> datetime | None:
    """Return the next moment after `after` at which something happens to a grant by time alone; None: never.

    It begins, it expires, and `keep` after that what is left of it is written off.
    """
    moments = [starts_at, *(() if expires_at is None else (expires_at, expires_at + keep))]
    return min((moment for moment in moments if moment > after), default=None)
