"""Who applies which kind of object: one table, so that an event can mean nothing else."""

from typing import Final

from control_plane.stripe_sync.events.allowlist import Kind
from control_plane.stripe_sync.events.lone_events import apply_event
from control_plane.stripe_sync.events.processing import Appliers
from control_plane.stripe_sync.invoices.claims import apply_credit_note, apply_dispute
from control_plane.stripe_sync.invoices.mirror import apply_invoice
from control_plane.stripe_sync.subscriptions.applying import apply_schedule, apply_subscription
from control_plane.stripe_sync.subscriptions.checkout import apply_checkout
from control_plane.stripe_sync.subscriptions.customers import apply_customer
from control_plane.stripe_sync.usage.meter_errors import apply_meter_errors

APPLIERS: Final[Appliers] = {
    Kind.CHECKOUT: apply_checkout,
    Kind.SUBSCRIPTION: apply_subscription,
    Kind.SCHEDULE: apply_schedule,
    Kind.CUSTOMER: apply_customer,
    Kind.INVOICE: apply_invoice,
    Kind.CREDIT_NOTE: apply_credit_note,
    Kind.DISPUTE: apply_dispute,
    Kind.METER_ERRORS: apply_meter_errors,
    Kind.EVENT: apply_event,
}
