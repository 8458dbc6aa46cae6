"""What a customer does on a checkout page, and the page itself."""

import html
from typing import Annotated, Any

from fastapi import APIRouter, Form
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from devstack.stripe.billing.cards import attach, card_named, declined
from devstack.stripe.billing.charging import will_pay
from devstack.stripe.billing.checkout import KIND, count_again, enter_code
from devstack.stripe.billing.hosted import button, form, show
from devstack.stripe.billing.lines import in_words
from devstack.stripe.billing.starting import start
from devstack.stripe.objects.customers import create_customer
from devstack.stripe.problems import StripeProblem, no_such
from devstack.stripe.routes import Call, order, pages
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object


def complete(
    sim: Simulator,
    session: Object,
    *,
    card: str = "pm_card_visa",
    email: str | None = None,
    name: str | None = None,
    address: dict[str, str] | None = None,
    promotion_code: str | None = None,
) -> str:
    """Fill the page in and press its button. Returns where the browser goes then.

    Raises StripeProblem for a card that is refused: the session stays open, nothing was made.
    """
    if session["status"] != "open":
        raise StripeProblem(f"This checkout session is {session['status']}.", param="session")
    if promotion_code:
        enter_code(sim, session, promotion_code)
    _refuse_declined(card, due=count_again(sim, session)["amount_due"])
    customer = _customer(sim, session, email=email, name=name, address=address)
    expected = count_again(sim, session)
    needs_card = expected["amount_due"] > 0 or session["payment_method_collection"] == "always"
    method = _card(sim, customer, card, due=expected["amount_due"]) if needs_card else None
    wanted = {**session["_wanted"], "_discounted_by": {"checkout_session": session["id"]}}
    if method is not None:
        wanted["default_payment_method"] = method["id"]
        method["_authenticated"] = True
    sub = start(sim, customer, wanted, behavior="error_if_incomplete")
    if method is not None:
        # the customer was there this time only
        del method["_authenticated"]
    _finish(sim, session, sub, customer, expected)
    target: str = session["success_url"] or ""
    return target.replace("{CHECKOUT_SESSION_ID}", session["id"])


def _customer(
    sim: Simulator, session: Object, *, email: str | None, name: str | None, address: dict[str, str] | None
) -> Object:
    email = email or session["customer_email"]
    if session["customer"] is None:
        given: dict[str, Any] = {"email": email or "customer@example.com", "name": name or "A Customer"}
        if address:
            given["address"] = address
        customer = create_customer(sim, Call("POST", "/v1/customers", {}, given))
        session["customer"] = customer["id"]
        return customer
    customer = sim.state.get("customer", session["customer"])
    update = session["_params"].get("customer_update", {})
    if not {"address", "name"} & update.keys():
        return customer
    with sim.changing(customer, "customer.updated"):
        if address and update.get("address") == "auto":
            empty = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"))
            customer["address"] = {**empty, **address}
        if name and update.get("name") == "auto":
            customer["name"] = name
    return customer


def _refuse_declined(identifier: str, *, due: int) -> None:
    card = card_named(identifier)
    if card is None:
        raise no_such("PaymentMethod", identifier, param="card")
    if card.declines and (due > 0 or not card.attaches):
        raise declined(card.declines)


def _card(sim: Simulator, customer: Object, identifier: str, *, due: int) -> Object:
    method = attach(sim, identifier, customer["id"], param="card")
    outcome = will_pay({**method, "_authenticated": True})
    if due > 0 and not outcome.paid:
        raise declined(outcome.code or "generic_decline")
    return method


def _finish(sim: Simulator, session: Object, sub: Object, customer: Object, expected: Object) -> None:
    if due := session.pop("_due", None):
        due.cancel()
    invoice = sim.state.find("invoice", sub["latest_invoice"] or "")
    tax = session["automatic_tax"]
    if tax["enabled"] and invoice:
        tax["status"] = invoice["automatic_tax"]["status"]
    session.update(
        status="complete",
        payment_status="paid" if expected["amount_due"] > 0 else "no_payment_required",
        subscription=sub["id"],
        invoice=sub["latest_invoice"],
        customer=customer["id"],
        url=None,
        customer_details={
            "address": customer["address"],
            "business_name": None,
            "email": customer["email"],
            "individual_name": None,
            "name": customer["name"],
            "phone": customer["phone"],
            "tax_exempt": customer["tax_exempt"],
            "tax_ids": [],
        },
    )
    sim.emit("checkout.session.completed", session)


@order("complete_checkout")
def complete_checkout(sim: Simulator, given: dict[str, Any]) -> dict[str, Any]:
    """`session` (id), and as `complete` takes it: card, email, name, address, promotion_code."""
    session = sim.state.get(KIND, given.pop("session"))
    try:
        url = complete(sim, session, **given)
    except StripeProblem as problem:
        return {"completed": False, "problem": problem.body()["error"], "url": None}
    return {"completed": True, "url": url, "subscription": session["subscription"]}


@pages
def checkout_pages(sim: Simulator) -> APIRouter:
    router = APIRouter()

    @router.get("/checkout/{identifier}", response_class=HTMLResponse)
    async def checkout(identifier: str) -> HTMLResponse:
        session = sim.state.find(KIND, identifier)
        return _page(session) if session else show("Checkout", "<p>There is no such session.</p>", status=404)

    @router.post("/checkout/{identifier}", response_model=None)
    async def pay(
        identifier: str,
        card: Annotated[str, Form()] = "pm_card_visa",
        email: Annotated[str, Form()] = "",
        promotion_code: Annotated[str, Form()] = "",
    ) -> Response:
        session = sim.state.find(KIND, identifier)
        if session is None:
            return show("Checkout", "<p>There is no such session.</p>", status=404)
        try:
            target = complete(sim, session, card=card, email=email or None, promotion_code=promotion_code or None)
        except StripeProblem as problem:
            return _page(session, problem.message)
        return RedirectResponse(target, status_code=303)

    return router


def _words(item: Object) -> str:
    recurring = item["price"]["recurring"]
    every = f" / {recurring['interval']}" if recurring and recurring["interval_count"] == 1 else ""
    costs = "by usage" if item["quantity"] is None else in_words(item["amount_total"], item["currency"])
    return f"{html.escape(item['description'])}: {costs}{every if item['quantity'] is not None else ''}"


def _page(session: Object, problem: str = "") -> HTMLResponse:
    if session["status"] != "open":
        return show("Checkout", f"<p>This checkout session is {session['status']}.</p>")
    names = "".join(f"<li>{_words(one)}</li>" for one in session["_line_items"])
    due = in_words(session["amount_total"] or 0, session["currency"])
    fields = []
    if session["customer"] is None and session["customer_email"] is None:
        fields.append('<label>E-mail <input name="email" type="email" value="customer@example.com"></label>')
    if session["allow_promotion_codes"]:
        fields.append('<label>Promotion code <input name="promotion_code"></label>')
    buttons = (
        button("card", "pm_card_visa", f"Pay {due}"),
        button("card", "pm_card_chargeCustomerFail", "Pay with a card that fails", quiet=True),
    )
    back = f'<p><a href="{session["cancel_url"]}">Go back</a></p>' if session["cancel_url"] else ""
    filled = form(f"/checkout/{session['id']}", [*fields, *buttons])
    return show("Checkout", f"<ul>{names}</ul>{filled}{back}", problem=problem)
