"""What may happen to a final invoice, and what of it is left to pay. Pure."""

from typing import Protocol

from control_plane.foundation.errors import ConflictError
from control_plane.foundation.money import Money

MAX_REFERENCE = 200
MAX_METHOD = 200
MAX_REASON = 1_000
# an invoice that was given up can still be paid
PAYABLE = frozenset({"open", "uncollectible"})


class Owed(Protocol):
    """What is asked of an invoice to tell what is left to pay."""

    amount_due_minor: int
    amount_paid_minor: int
    credited_minor: int


class InvoiceStepRefusedError(ConflictError):
    """An invoice of that status cannot be paid, made void or given up."""

    def __init__(self, invoice_id: str, status: str, wanted: str) -> None:
        super().__init__("invoice_step_refused", f"Invoice {invoice_id} is {status}: it cannot be {wanted}.")


class PaymentExceedsDueError(ConflictError):
    """More came in than is left to pay, and nobody said where the rest goes."""

    def __init__(self, left_minor: int, currency: str) -> None:
        super().__init__(
            "payment_exceeds_due",
            f"Only {Money(left_minor, currency)} is left to pay: note that, or let the rest go to the balance.",
        )


class PaymentReferenceTakenError(ConflictError):
    """The reference stands for another amount already."""

    def __init__(self, reference: str, amount_minor: int, currency: str) -> None:
        super().__init__(
            "payment_reference_taken",
            f"{Money(amount_minor, currency)} was noted under the reference {reference} already; "
            "another payment needs another reference.",
        )


class InvoiceNotVoidableError(ConflictError):
    """Something was paid or credited: only a credit note can take the rest back."""

    def __init__(self, invoice_id: str) -> None:
        super().__init__(
            "invoice_not_voidable",
            f"Something was paid on invoice {invoice_id}, or credited: take the rest back with a credit note.",
        )


def left_minor(invoice: Owed) -> int:
    """Return what is left to pay: what was due less what was paid and what credit notes took off."""
    return invoice.amount_due_minor - invoice.amount_paid_minor - invoice.credited_minor
