"""Forms that bodies and answers share: strict bodies, bounded text, moments, money, pages."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Generic, TypeVar

from fastapi import Path, Request
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
)

from control_plane.foundation.errors import ValidationFailedError
from control_plane.foundation.money import Money
from control_plane.foundation.pagination import MAX_PAGE_SIZE, Page
from control_plane.foundation.windows import MAX_LIMIT, MAX_WINDOW_MS, MIN_WINDOW_MS
from control_plane.rating.words import format_amount

Item = TypeVar("Item")
Row = TypeVar("Row")


class StrictBody(BaseModel):
    """A request body: unknown fields are refused, numbers are never made of text."""

    model_config = ConfigDict(extra="forbid")


class Answer(BaseModel):
    """An answer, read from rows by attribute."""

    model_config = ConfigDict(from_attributes=True)


def _read_moment(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, str) and "T" in value.upper():
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        # a year at either end cannot be moved between time zones
        if moment is not None and moment.tzinfo is not None and 2000 <= moment.year < 2200:  # noqa: PLR2004
            return moment.astimezone(UTC)
    raise ValueError('must be an RFC 3339 time with a zone between 2000 and 2200, like "2026-11-23T09:00:00Z"')


def _write_moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not hold control characters")
    return text


Moment = Annotated[datetime, BeforeValidator(_read_moment), PlainSerializer(_write_moment, return_type=str)]
PrintableText = AfterValidator(_printable)
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), PrintableText]
Line = Annotated[str, StringConstraints(max_length=1000), PrintableText]
Code = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,47}$")]
Units = Annotated[int, Field(strict=True, ge=1, le=2**53 - 1)]

_ID = r"_[0-9a-hjkmnp-tv-z]{26}$"
AccountId = Annotated[str, Path(pattern="^acc" + _ID, description="The account's id.")]
SubscriptionId = Annotated[str, Path(pattern="^sub" + _ID, description="The subscription's id.")]
KeyId = Annotated[str, Path(pattern="^key" + _ID, description="The API key's id.")]
TokenId = Annotated[str, Path(pattern="^tok" + _ID, description="The token's id.")]
CodePath = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_-]{0,47}$", description="Its code.")]


class WindowForm(StrictBody):
    """At most `limit` calls in any interval of `window_ms`."""

    limit: Annotated[int, Field(strict=True, ge=1, le=MAX_LIMIT)]
    window_ms: Annotated[int, Field(strict=True, ge=MIN_WINDOW_MS, le=MAX_WINDOW_MS)]


class MoneyAnswer(BaseModel):
    """An amount: whole minor units for programs, text for people."""

    amount_minor: int
    currency: str
    text: str = Field(examples=["$49.00"])

    @classmethod
    def of(cls, amount_minor: int, currency: str) -> "MoneyAnswer":
        amount = Money(amount_minor, currency).as_decimal()
        return cls(amount_minor=amount_minor, currency=currency, text=format_amount(amount, currency))


class PageQuery(StrictBody):
    """Which page of a list."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE_SIZE, description="How many at most.")] = 50
    cursor: Annotated[
        str | None, Field(max_length=1000, description="`next_cursor` of the page before; left out for the first.")
    ] = None


REPEATABLE = frozenset({"group_by"})


def refuse_repeated_parameters(request: Request) -> None:
    """Raise ValidationFailedError where a parameter is given twice: nobody can say which of them counts."""
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name in seen and name not in REPEATABLE:
            raise ValidationFailedError(name, "is given more than once")
        seen.add(name)


class PageAnswer(BaseModel, Generic[Item]):
    """One page of a list. `next_cursor` is null on the last."""

    items: list[Item]
    next_cursor: str | None


def page_answer(page: Page[Row], form: Callable[[Row], Item]) -> PageAnswer[Item]:
    """Return a page of rows as a page of answers."""
    return PageAnswer(items=[form(row) for row in page.items], next_cursor=page.next_cursor)
