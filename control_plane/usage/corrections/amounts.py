"""What an amendment may say, and that it takes no more than there is. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from control_plane.foundation.errors import ConflictError, ValidationFailedError
from control_plane.usage.model import MAX_UNITS

MAX_METERS = 20
MAX_REASON_LENGTH = 1000
MAX_REFERENCE_LENGTH = 200
CALLS = ""


class BelowZeroError(ConflictError):
    """There is less billable of a meter in the hour than would be taken."""

    def __init__(self, meter: str, *, taken: int, known: int) -> None:
        what = f"units of {meter}" if meter else "billable calls"
        super().__init__(
            "below_zero", f"The hour has {known:,} {what} in this phase: {taken:,} cannot be taken from it."
        )


@dataclass(frozen=True, slots=True)
class Amounts:
    """Billable calls, and units by meter; below zero they are taken away."""

    calls: int
    meters: Mapping[str, int]

    def by_meter(self) -> dict[str, int]:
        """Return all of them by meter, calls under ''."""
        return {CALLS: self.calls, **self.meters}


def checked_amounts(calls: int, meters: Mapping[str, int]) -> Amounts:
    """Return amounts without those that are 0.

    Raises:
        ValidationFailedError: nothing is left, too many meters, or an amount beyond 10^12 either way.
    """
    for field, amount in (("calls", calls), *((f"meters.{meter}", units) for meter, units in meters.items())):
        if abs(amount) > MAX_UNITS:
            raise ValidationFailedError(field, f"must be between {-MAX_UNITS:,} and {MAX_UNITS:,}")
    if len(meters) > MAX_METERS:
        raise ValidationFailedError("meters", f"must have at most {MAX_METERS} entries")
    left = {meter: units for meter, units in sorted(meters.items()) if units}
    if not calls and not left:
        raise ValidationFailedError("meters", "must change something: give calls, or units of a meter")
    return Amounts(calls, left)


def require_known_meters(
    amounts: Amounts, *, countable: Collection[str], declared: Collection[str], known: Mapping[str, int]
) -> None:
    """Refuse meters that nothing of the product or the hour counts: a slip of the pen would never be billed.

    `declared` are those meters of the catalog whose hours add up.

    Raises:
        ValidationFailedError: names the first.
    """
    allowed = {*countable, *declared, *known}
    for meter in amounts.meters:
        if meter == CALLS or meter not in allowed:
            names = ", ".join(sorted(allowed - {CALLS}))
            raise ValidationFailedError(f"meters.{meter}", f"is not a meter that adds up; there are {names}")


def require_nothing_below_zero(amounts: Amounts, known: Mapping[str, int]) -> None:
    """Refuse amounts that would take more than is known of a phase in an hour.

    Raises:
        BelowZeroError: for the first meter.
    """
    for meter, units in amounts.by_meter().items():
        if units < 0 and known.get(meter, 0) + units < 0:
            raise BelowZeroError(meter, taken=-units, known=max(0, known.get(meter, 0)))


def clean_reason(text: str) -> str:
    """Return the reason without spaces around it.

    Raises:
        ValidationFailedError: empty, longer than 1,000 characters, or with control characters.
    """
    return _clean(text, field="reason", most=MAX_REASON_LENGTH)


def clean_reference(text: str | None) -> str | None:
    """Return the reference without spaces around it.

    Raises:
        ValidationFailedError: empty, longer than 200 characters, or with control characters.
    """
    return None if text is None else _clean(text, field="reference", most=MAX_REFERENCE_LENGTH)


def _clean(text: str, *, field: str, most: int) -> str:
    clean = text.strip()
    if not 1 <= len(clean) <= most:
        raise ValidationFailedError(field, f"must have 1 to {most:,} characters")
    if not clean.isprintable():
        raise ValidationFailedError(field, "must not contain control characters")
    return clean
