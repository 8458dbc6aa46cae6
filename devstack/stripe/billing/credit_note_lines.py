"""What a credit note credits: an amount, or parts of an invoice's lines."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from devstack.stripe.billing.amounts import to_minor
from devstack.stripe.problems import StripeProblem
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object


@dataclass
class Credited:
    """What a note comes to."""

    lines: list[Object] = field(default_factory=list)
    subtotal: int = 0
    discounts: dict[str, int] = field(default_factory=dict)
    taxes: list[Object] = field(default_factory=list)

    @property
    def total(self) -> int:
        exclusive: int = sum(one["amount"] for one in self.taxes if one["tax_behavior"] == "exclusive")
        return self.subtotal - sum(self.discounts.values()) + exclusive


def of_amount(sim: Simulator, invoice: Object, params: dict[str, Any]) -> Credited:
    amount = params["amount"]
    line = _line(sim, description=params.get("memo") or f"Credit for {invoice['number']}", amount=amount)
    return Credited([line], subtotal=amount)


def of_lines(sim: Simulator, invoice: Object, given: list[dict[str, Any]]) -> Credited:
    credited = Credited()
    for number, entry in enumerate(given):
        where = f"lines[{number}]"
        if entry["type"] == "custom_line_item":
            unit = Decimal(str(entry.get("unit_amount_decimal") or entry.get("unit_amount") or 0))
            quantity = entry.get("quantity", 1)
            amount = to_minor(unit * quantity)
            line = _line(sim, description=entry.get("description") or "Credit", amount=amount, quantity=quantity)
        else:
            line = _of_invoice_line(sim, invoice, entry, where, credited)
        credited.lines.append(line)
        credited.subtotal += line["amount"]
    return credited


def _of_invoice_line(
    sim: Simulator, invoice: Object, entry: dict[str, Any], where: str, credited: Credited
) -> Object:
    """A part of a line, with the same part of its discounts and taxes."""
    identifier = entry.get("invoice_line_item")
    of = next((one for one in invoice["_lines"] if one["id"] == identifier), None)
    if of is None:
        raise StripeProblem(f"No such invoice line item: '{identifier}'", param=f"{where}[invoice_line_item]")
    if "amount" in entry:
        part = Decimal(entry["amount"]) / of["amount"] if of["amount"] else Decimal(0)
    else:
        part = Decimal(entry.get("quantity", of["quantity"] or 1)) / (of["quantity"] or 1)
    line = _line(
        sim, description=of["description"], amount=to_minor(part * of["amount"]), quantity=entry.get("quantity")
    )
    line.update(type="invoice_line_item", invoice_line_item=of["id"])
    for one in of["discount_amounts"]:
        share = to_minor(part * one["amount"])
        line["discount_amounts"].append({"amount": share, "discount": one["discount"]})
        line["discount_amount"] += share
        credited.discounts[one["discount"]] = credited.discounts.get(one["discount"], 0) + share
    for one in of["taxes"]:
        taxed = {name: to_minor(part * one[name]) for name in ("amount", "taxable_amount")}
        line["taxes"].append({**one, **taxed})
        credited.taxes.append({**one, **taxed})
    return line


def _line(sim: Simulator, *, description: str, amount: int, quantity: int | None = None) -> Object:
    return {
        "id": sim.state.new_id("cnli", 24),
        "object": "credit_note_line_item",
        "amount": amount,
        "description": description,
        "discount_amount": 0,
        "discount_amounts": [],
        "invoice_line_item": None,
        "livemode": False,
        "pretax_credit_amounts": [],
        "quantity": quantity,
        "tax_rates": [],
        "taxes": [],
        "type": "custom_line_item",
        "unit_amount": None,
        "unit_amount_decimal": None,
    }
