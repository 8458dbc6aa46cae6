"""Stripe's codes for usage that it does not count: what becomes of the row, and what somebody should do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from control_plane.stripe_sync.usage.model import RowState
from control_plane.stripe_sync.usage.reasons import Reason


@dataclass(frozen=True, slots=True)
class Refusal:
    """`reason` None: the code itself. `to_do` is a sentence for operators."""

    state: RowState
    to_do: str
    reason: Reason | None = None


_BY_US = "This is a fault of the product's: the row says what was sent."
REFUSALS: Final[Mapping[str, Refusal]] = {
    "archived_meter": Refusal(
        RowState.REFUSED, "The meter is deactivated at Stripe: reactivate it there, then retry the rows."
    ),
    "no_meter": Refusal(RowState.REFUSED, "Stripe has no such meter: run `km stripe sync`, then retry the rows."),
    "meter_event_customer_not_found": Refusal(
        RowState.REFUSED, "Stripe has no such customer (any more): their usage must be billed by hand."
    ),
    "meter_event_no_customer_defined": Refusal(RowState.REFUSED, _BY_US),
    "meter_event_invalid_value": Refusal(RowState.REFUSED, _BY_US),
    "meter_event_dimension_count_too_high": Refusal(RowState.REFUSED, _BY_US),
    "missing_dimension_payload_keys": Refusal(
        RowState.REFUSED, "The meter at Stripe asks for dimensions: it was not made by this product."
    ),
    "meter_event_value_too_many_digits": Refusal(
        RowState.OURS, "Nothing: an adjustment of the invoice takes the units.", Reason.TOO_LARGE
    ),
    "timestamp_in_future": Refusal(
        RowState.WAITING, "The clock of this machine is ahead: set it. The rows are sent again by themselves."
    ),
    "timestamp_too_far_in_past": Refusal(
        RowState.TOO_OLD, "Nothing: an adjustment of the invoice takes the units.", Reason.TOO_OLD
    ),
}
_OTHER: Final = Refusal(RowState.REFUSED, "Look at what Stripe says of it, mend that, then retry the rows.")


def refusal_for(code: str) -> Refusal:
    return REFUSALS.get(code, _OTHER)


def alarm_for(code: str) -> str:
    """Return what somebody should do about a code."""
    return refusal_for(code).to_do
