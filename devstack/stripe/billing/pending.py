"""Invoice items: lines that wait for an invoice, or were put on a draft."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from devstack.stripe.billing import discounts
from devstack.stripe.billing.amounts import to_minor
from devstack.stripe.billing.invoicing import recount, set_lines
from devstack.stripe.billing.items import price_of_data, rates_of
from devstack.stripe.billing.lines import make_line, product_name
from devstack.stripe.fields import merge_metadata
from devstack.stripe.paging import page
from devstack.stripe.problems import StripeProblem, no_such
from devstack.stripe.routes import Call, route
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object


def keep_pending(sim: Simulator, customer: Object, line: Object, *, now: int) -> Object:
    """Make an invoice item of a line; `gather` takes it onto an invoice."""
    details = line["parent"]["subscription_item_details"] or line["parent"]["invoice_item_details"]
    sub_id = line["subscription"]
    item = sim.state.add(
        {
            "id": sim.state.new_id("ii", 24),
            "object": "invoiceitem",
            "amount": line["amount"],
            "currency": line["currency"],
            "customer": customer["id"],
            "customer_account": None,
            "date": now,
            "description": line["description"],
            "discountable": line["discountable"],
            "discounts": list(line["discounts"]),
            "invoice": None,
            "livemode": False,
            "metadata": dict(line["metadata"]),
            "net_amount": line["amount"] - sum(amount for _, amount in line["_fixed"]),
            "parent": None
            if sub_id is None
            else {
                "type": "subscription_details",
                "subscription_details": {
                    "subscription": sub_id,
                    "subscription_item": details.get("subscription_item"),
                },
            },
            "period": dict(line["period"]),
            "pricing": line["pricing"],
            "proration": details["proration"],
            "proration_details": {
                "discount_amounts": [{"amount": amount, "discount": one} for one, amount in line["_fixed"]]
            }
            if details["proration"]
            else None,
            "quantity": line["quantity"] if line["quantity"] is not None else 1,
            "quantity_decimal": Decimal(line["quantity"] if line["quantity"] is not None else 1),
            "tax_rates": list(line["_rates"]),
            "test_clock": customer.get("test_clock"),
            "_line": line,
        }
    )
    details["invoice_item"] = item["id"]
    sim.emit("invoiceitem.created", item)
    return item


def gather(sim: Simulator, customer: str, sub_id: str | None, currency: str) -> list[Object]:
    """Invoice items that wait for the next invoice of this subscription (or of none in particular)."""
    found = []
    for item in sim.state.where("invoiceitem", customer=customer, invoice=None, currency=currency):
        owner = subscription_of_item(item)
        if owner is None or owner == sub_id:
            found.append(item)
    return found


def subscription_of_item(item: Object) -> str | None:
    return item["parent"]["subscription_details"]["subscription"] if item["parent"] else None


def put_on(invoice: Object, items: Sequence[Object]) -> None:
    """Say that these items are on that invoice now; their lines are put there by the caller."""
    for item in items:
        item["invoice"] = invoice["id"]


@route("POST", "/v1/invoiceitems")
def create_invoice_item(sim: Simulator, call: Call) -> Object:
    params = call.params
    customer = sim.state.get("customer", params["customer"], param="customer") if "customer" in params else None
    invoice = _draft(sim, params["invoice"]) if "invoice" in params else None
    if customer is None:
        if invoice is None:
            raise StripeProblem("Missing required param: customer.", code="parameter_missing", param="customer")
        customer = sim.state.get("customer", invoice["customer"])
    if invoice is not None and invoice["customer"] != customer["id"]:
        raise StripeProblem("The invoice belongs to another customer.", param="invoice")
    sub_id = params.get("subscription")
    if sub_id is not None:
        sub = sim.state.get("subscription", sub_id, param="subscription")
        if sub["customer"] != customer["id"]:
            raise StripeProblem("The subscription belongs to another customer.", param="subscription")
    line = _line_of(sim, params, customer, invoice, sub_id)
    if params.get("discounts"):
        checked = discounts.check(
            sim, params["discounts"], customer=customer["id"], currency=line["currency"], param="discounts"
        )
        line["discounts"] = discounts.give(sim, checked, customer=customer["id"], now=sim.now(customer["id"]))
    item = keep_pending(sim, customer, line, now=sim.now(customer["id"]))
    merge_metadata(item, params)
    line["metadata"] = item["metadata"]
    if invoice is not None:
        add_to_draft(sim, invoice, [item])
    return item


def add_to_draft(sim: Simulator, invoice: Object, items: Sequence[Object]) -> None:
    with sim.changing(invoice, "invoice.updated"):
        put_on(invoice, items)
        set_lines(invoice, [*invoice["_lines"], *(one["_line"] for one in items)])
        recount(sim, invoice)


def _draft(sim: Simulator, identifier: str) -> Object:
    invoice = sim.state.get("invoice", identifier, param="invoice")
    if invoice["status"] != "draft":
        raise StripeProblem(
            "This invoice is no longer editable: only a draft takes invoice items.",
            code="invoice_not_editable",
            param="invoice",
        )
    return invoice


def _line_of(
    sim: Simulator, params: dict[str, Any], customer: Object, invoice: Object | None, sub_id: str | None
) -> Object:
    now = sim.now(customer["id"])
    amount, currency, price, quantity, unit = _amount(sim, params)
    currency = currency or (invoice["currency"] if invoice else None) or customer.get("currency") or "usd"
    if invoice is not None and invoice["currency"] != currency:
        raise StripeProblem("The invoice is in another currency.", param="currency")
    period = params.get("period", {})
    described = params.get("description") or (product_name(sim, price) if price else None)
    return make_line(
        sim,
        amount=amount,
        currency=currency,
        description=described or "Invoice item",
        period=(period.get("start", now), period.get("end", now)),
        quantity=quantity,
        price=price,
        unit_amount=unit,
        subscription=sub_id or ((invoice and _subscription_of(invoice)) or None),
        # negative amounts take no discount unless asked to
        discountable=params.get("discountable", amount >= 0),
        rates=rates_of(sim, params.get("tax_rates"), "invoiceitem"),
        metadata=params.get("metadata") or {},
    )


def line_of_item_params(sim: Simulator, params: dict[str, Any], customer: Object, sub_id: str | None) -> Object:
    """A line as an invoice item made with these parameters would give, for previews."""
    given = dict(params)
    if "unit_amount" in given:
        given["unit_amount_decimal"] = given.pop("unit_amount")
    if "price" in given:
        given["pricing"] = {"price": given.pop("price")}
    return _line_of(sim, given, customer, None, sub_id)


def _subscription_of(invoice: Object) -> str | None:
    from devstack.stripe.billing.invoicing import subscription_of

    return subscription_of(invoice)


def _amount(sim: Simulator, params: dict[str, Any]) -> tuple[int, str | None, Object | None, int, Decimal | None]:
    """Amount, currency, price, quantity, unit amount: of an amount, or of a quantity of a price."""
    ways = [name for name in ("amount", "pricing", "price_data", "unit_amount_decimal") if name in params]
    if len(ways) != 1:
        raise StripeProblem(
            "Give one of amount, pricing[price], price_data and unit_amount_decimal.",
            param=ways[1] if ways else "amount",
        )
    quantity = int(params.get("quantity", 1))
    if ways == ["amount"]:
        if "quantity" in params:
            raise StripeProblem("quantity cannot be given together with amount.", param="quantity")
        return params["amount"], params.get("currency"), None, 1, None
    if ways == ["unit_amount_decimal"]:
        unit = Decimal(params["unit_amount_decimal"])
        return to_minor(unit * quantity), params.get("currency"), None, quantity, unit
    price = (
        one_time_price(sim, params["pricing"]["price"], "pricing[price]")
        if ways == ["pricing"]
        else price_of_data(sim, params["price_data"])
    )
    unit = Decimal(price["unit_amount_decimal"] or 0)
    return to_minor(unit * quantity), price["currency"], price, quantity, unit


def one_time_price(sim: Simulator, identifier: str, param: str) -> Object:
    price = sim.state.find("price", identifier)
    if price is None:
        raise no_such("price", identifier, param=param)
    if price["type"] != "one_time":
        raise StripeProblem(
            "The price specified is set to `type=recurring` but this field only accepts prices with "
            "`type=one_time`.",
            param=param,
        )
    return price


@route("GET", "/v1/invoiceitems/{invoiceitem}")
def retrieve_invoice_item(sim: Simulator, call: Call) -> Object:
    return sim.state.get("invoiceitem", call.path["invoiceitem"])


@route("POST", "/v1/invoiceitems/{invoiceitem}")
def update_invoice_item(sim: Simulator, call: Call) -> Object:
    item = sim.state.get("invoiceitem", call.path["invoiceitem"])
    invoice = _editable(sim, item)
    params, line = call.params, item["_line"]
    if "amount" in params:
        if item["proration"]:
            raise StripeProblem("The amount of a proration cannot be changed.", param="amount")
        line["amount"] = line["subtotal"] = item["amount"] = item["net_amount"] = params["amount"]
    if "description" in params:
        line["description"] = item["description"] = params["description"]
    if "discountable" in params:
        line["discountable"] = item["discountable"] = params["discountable"]
    merge_metadata(item, params)
    line["metadata"] = item["metadata"]
    if invoice is not None:
        with sim.changing(invoice, "invoice.updated"):
            recount(sim, invoice)
    return item


def _editable(sim: Simulator, item: Object) -> Object | None:
    """The draft it is on, if any. Raises when its invoice is final."""
    if item["invoice"] is None:
        return None
    invoice = sim.state.find("invoice", item["invoice"])
    if invoice is None or invoice["status"] != "draft":
        raise StripeProblem(
            "The invoice item is on an invoice that is final.", code="invoice_not_editable", param="invoiceitem"
        )
    return invoice


@route("DELETE", "/v1/invoiceitems/{invoiceitem}")
def delete_invoice_item(sim: Simulator, call: Call) -> Object:
    item = sim.state.get("invoiceitem", call.path["invoiceitem"])
    invoice = _editable(sim, item)
    if invoice is not None:
        with sim.changing(invoice, "invoice.updated"):
            set_lines(invoice, [one for one in invoice["_lines"] if one is not item["_line"]])
            recount(sim, invoice)
    sim.state.remove("invoiceitem", item["id"])
    sim.emit("invoiceitem.deleted", item)
    return {"id": item["id"], "object": "invoiceitem", "deleted": True}


@route("GET", "/v1/invoiceitems")
def list_invoice_items(sim: Simulator, call: Call) -> Object:
    wanted = call.params
    found = [
        {**one, "created": one["date"]}
        for one in sim.state.all("invoiceitem")
        if wanted.get("customer") in (None, one["customer"])
        and wanted.get("invoice") in (None, one["invoice"])
        and not (wanted.get("pending") and one["invoice"] is not None)
        and not (wanted.get("pending") is False and one["invoice"] is None)
    ]
    listed = page(call, found)
    for one in listed["data"]:
        del one["created"]
    return listed
