"""Who applies which kind of object: one table, so that an event can mean nothing else."""

from typing import Final

from control_plane.stripe_sync.events.allowlist import Kind
from control_plane.stripe_sync.events.lone_events import apply_event
from control_plane.stripe_sync.events.processing import Appliers
from control_plane.stripe_sync.invoices.claims import apply_credit_note, apply_dispute
from control_plane.stripe_sync.invoices.mirror import apply_invoice

APPLIERS: Final[Appliers] = {
    Kind.EVENT: apply_event,
    Kind.INVOICE: apply_invoice,
    Kind.CREDIT_NOTE: apply_credit_note,
    Kind.DISPUTE: apply_dispute,
}
