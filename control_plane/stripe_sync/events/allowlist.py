"""Which events of Stripe are acted on, and which object each of them has us read again."""

from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """Kinds of objects that are read again."""

    CHECKOUT = "checkout"
    SUBSCRIPTION = "subscription"
    SCHEDULE = "schedule"
    CUSTOMER = "customer"
    INVOICE = "invoice"
    CREDIT_NOTE = "credit_note"
    DISPUTE = "dispute"
    METER_ERRORS = "meter_errors"
    EVENT = "event"  # known by its id alone: reading it tells what it is about


THIN_PREFIX: Final = "v1."
_OF_KIND: Final[dict[Kind, tuple[str, ...]]] = {
    Kind.CHECKOUT: (
        "checkout.session.completed",
        "checkout.session.expired",
        "checkout.session.async_payment_succeeded",
        "checkout.session.async_payment_failed",
    ),
    Kind.SUBSCRIPTION: (
        "customer.subscription.created",
        "customer.subscription.updated",
        "customer.subscription.deleted",
        "customer.subscription.paused",
        "customer.subscription.resumed",
        "customer.subscription.trial_will_end",
        "customer.subscription.pending_update_applied",
        "customer.subscription.pending_update_expired",
    ),
    Kind.SCHEDULE: (
        "subscription_schedule.created",
        "subscription_schedule.updated",
        "subscription_schedule.released",
        "subscription_schedule.completed",
        "subscription_schedule.aborted",
        "subscription_schedule.canceled",
    ),
    Kind.CUSTOMER: ("customer.updated", "customer.deleted"),
    Kind.INVOICE: (
        "invoice.created",
        "invoice.updated",
        "invoice.finalized",
        "invoice.finalization_failed",
        "invoice.paid",
        "invoice.payment_failed",
        "invoice.payment_action_required",
        "invoice.overdue",
        "invoice.voided",
        "invoice.marked_uncollectible",
        "invoice.deleted",
    ),
    Kind.CREDIT_NOTE: ("credit_note.created", "credit_note.updated", "credit_note.voided"),
    Kind.DISPUTE: ("charge.dispute.created", "charge.dispute.updated", "charge.dispute.closed"),
}
_SNAPSHOTS: Final = {name: kind for kind, names in _OF_KIND.items() for name in names}

SNAPSHOT_TYPES: Final = tuple(_SNAPSHOTS)
"""What the endpoint for snapshot events listens to."""

THIN_TYPES: Final = ("v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found")
"""What the destination for thin events listens to: these exist in no other form."""

OBJECT_PREFIXES: Final = {
    "sub_sched_": Kind.SCHEDULE,
    "sub_": Kind.SUBSCRIPTION,
    "cs_": Kind.CHECKOUT,
    "cus_": Kind.CUSTOMER,
    "in_": Kind.INVOICE,
    "cn_": Kind.CREDIT_NOTE,
    "dp_": Kind.DISPUTE,
    "du_": Kind.DISPUTE,
    "evt_": Kind.EVENT,
}
"""By which kind an id can be told; the longer prefix first."""


def kind_of(event_type: str) -> Kind | None:
    """Return what an event of this type has us read; None where nobody acts on it.

    Thin events of v1 objects are named like snapshots behind `v1.`, and mean the same.
    """
    if event_type in THIN_TYPES:
        return Kind.METER_ERRORS
    return _SNAPSHOTS.get(event_type.removeprefix(THIN_PREFIX))


def kind_of_object(object_id: str) -> Kind | None:
    """Return the kind that an object's id names; None for other ids."""
    return next((kind for prefix, kind in OBJECT_PREFIXES.items() if object_id.startswith(prefix)), None)
