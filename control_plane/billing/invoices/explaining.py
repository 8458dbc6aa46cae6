"""Why a line of an invoice costs what it costs, from what the invoice keeps of it. Pure."""

from control_plane.billing.invoices.tables import InvoiceLine
from control_plane.rating.explain import explain, kept_tiers
from control_plane.rating.model import Unit


def explained(line: InvoiceLine, currency: str) -> tuple[str, ...]:
    """Return the sentences of a line, the sum first; none where nothing was reckoned."""
    if not line.formula:
        return ()
    unit, corrects = line.details.get("unit"), line.details.get("corrects", {})
    return explain(
        formula=line.formula,
        exact_amount=line.exact_amount,
        amount_minor=line.amount_minor,
        currency=currency,
        used_units=line.used_units,
        unit=Unit(*unit) if unit else None,
        tiers=kept_tiers(line.tiers),
        notes=line.details.get("notes", ()),
        due_minor=corrects.get("due_minor"),
    )
