"""The portal's page: change the card, plan or take back a cancellation, pay what is open."""

import html
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Form
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from devstack.stripe.billing.cards import declined
from devstack.stripe.billing.controls import pay_hosted, set_card
from devstack.stripe.billing.hosted import button, form, show
from devstack.stripe.billing.lifecycle import collect
from devstack.stripe.billing.lines import in_words
from devstack.stripe.billing.portal import CONFIGURATION, SESSION
from devstack.stripe.billing.updating import update
from devstack.stripe.problems import StripeProblem
from devstack.stripe.routes import pages
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object

OVER = ("canceled", "incomplete_expired")


@pages
def portal_pages(sim: Simulator) -> APIRouter:
    router = APIRouter()

    @router.get("/portal/{secret}", response_class=HTMLResponse)
    async def portal(secret: str) -> HTMLResponse:
        session = _session(sim, secret)
        return _gone() if session is None else _page(sim, session)

    @router.post("/portal/{secret}", response_model=None)
    async def act(
        secret: str,
        card: Annotated[str, Form()] = "",
        cancel: Annotated[str, Form()] = "",
        keep: Annotated[str, Form()] = "",
        pay: Annotated[str, Form()] = "",
    ) -> Response:
        session = _session(sim, secret)
        if session is None:
            return _gone()
        try:
            _do(sim, session, card=card, cancel=cancel, keep=keep, pay=pay)
        except StripeProblem as problem:
            return _page(sim, session, problem.message)
        return RedirectResponse(f"/portal/{secret}", status_code=303)

    @router.get("/_pages/invoices/{identifier}", response_class=HTMLResponse)
    async def hosted_invoice(identifier: str) -> HTMLResponse:
        return _invoice_page(sim, identifier)

    @router.post("/_pages/invoices/{identifier}", response_model=None)
    async def pay_there(identifier: str, card: Annotated[str, Form()] = "pm_card_visa") -> Response:
        invoice = sim.state.find("invoice", identifier)
        if invoice is None:
            return _gone()
        try:
            pay_hosted(sim, {"invoice": identifier, "card": card})
        except StripeProblem as problem:
            return _invoice_page(sim, identifier, problem.message)
        return RedirectResponse(f"/_pages/invoices/{identifier}", status_code=303)

    return router


def _gone() -> HTMLResponse:
    return show("Not here", "<p>This link is not valid.</p>", status=404)


def _session(sim: Simulator, secret: str) -> Object | None:
    found = sim.state.where(SESSION, _secret=secret)
    return found[0] if found else None


def _do(sim: Simulator, session: Object, *, card: str, cancel: str, keep: str, pay: str) -> None:
    features = sim.state.get(CONFIGURATION, session["configuration"])["features"]
    customer = session["customer"]
    if card and features["payment_method_update"]["enabled"]:
        set_card(sim, {"customer": customer, "card": card})
    if (cancel or keep) and features["subscription_cancel"]["enabled"]:
        sub = sim.state.get("subscription", cancel or keep)
        if sub["customer"] == customer:
            update(sim, sub, {"cancel_at_period_end": bool(cancel)})
    if pay:
        invoice = sim.state.get("invoice", pay)
        if invoice["customer"] == customer:
            _pay(sim, invoice)


def _pay(sim: Simulator, invoice: Object) -> None:
    if invoice["status"] not in ("open", "uncollectible"):
        return
    outcome = collect(sim, invoice, by_hand=True)
    if not outcome.paid:
        raise declined(outcome.code or "generic_decline")


def _day(moment: int) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%d %b %Y}"


def _page(sim: Simulator, session: Object, problem: str = "") -> HTMLResponse:
    features = sim.state.get(CONFIGURATION, session["configuration"])["features"]
    action = f"/portal/{session['_secret']}"
    parts = [
        _subscription(sub, action, may_cancel=features["subscription_cancel"]["enabled"])
        for sub in sim.state.where("subscription", customer=session["customer"])
        if sub["status"] not in OVER
    ]
    if features["payment_method_update"]["enabled"]:
        buttons = (
            button("card", "pm_card_visa", "Use a good card"),
            button("card", "pm_card_chargeCustomerFail", "Use a card that fails", quiet=True),
        )
        parts.append(f"<h2>Card</h2>{_card(sim, session['customer'])}{form(action, buttons)}")
    if features["invoice_history"]["enabled"]:
        parts.append("<h2>Invoices</h2>" + _invoices(sim, session["customer"], action))
    if session["return_url"]:
        parts.append(f'<p><a href="{html.escape(session["return_url"])}">Go back</a></p>')
    return show("Billing", "".join(parts), problem=problem)


def _subscription(sub: Object, action: str, *, may_cancel: bool) -> str:
    end = _day(max(item["current_period_end"] for item in sub["items"]["data"]))
    said = f"<p>Subscription: {sub['status']}, until {end}</p>"
    if not may_cancel or sub["schedule"]:
        return said
    if sub["cancel_at_period_end"]:
        return said + form(action, [button("keep", sub["id"], "Do not cancel")])
    return said + form(action, [button("cancel", sub["id"], f"Cancel on {end}", quiet=True)])


def _card(sim: Simulator, customer: str) -> str:
    default = sim.state.get("customer", customer)["invoice_settings"]["default_payment_method"]
    live = [one for one in sim.state.where("subscription", customer=customer) if one["status"] not in OVER]
    named = {one["default_payment_method"] or default for one in live} or {default}
    cards = [sim.state.get("payment_method", one)["card"] for one in sorted(one for one in named if one)]
    words = ", ".join(f"{one['brand']} ending in {one['last4']}" for one in cards)
    return f"<p>{words or 'No card is on file.'}</p>"


def _invoices(sim: Simulator, customer: str, action: str) -> str:
    rows = []
    for one in reversed(sim.state.where("invoice", customer=customer)):
        if one["status"] == "draft":
            continue
        total = in_words(one["total"], one["currency"])
        pay = form(action, [button("pay", one["id"], "Pay")]) if one["status"] == "open" else ""
        rows.append(f"<li>{one['number']}: {total}, {one['status']}{pay}</li>")
    return f"<ul>{''.join(rows)}</ul>"


def _invoice_page(sim: Simulator, identifier: str, problem: str = "") -> HTMLResponse:
    invoice = sim.state.find("invoice", identifier)
    if invoice is None:
        return _gone()
    rows = "".join(
        f"<li>{html.escape(one['description'])}: {in_words(one['amount'], one['currency'])}</li>"
        for one in invoice["_lines"]
    )
    total = in_words(invoice["total"], invoice["currency"])
    pay = ""
    if invoice["status"] in ("open", "uncollectible"):
        pay = form(f"/_pages/invoices/{identifier}", [button("card", "pm_card_visa", f"Pay {total}")])
    return show(
        f"Invoice {invoice['number']}", f"<ul>{rows}</ul><p>{total}, {invoice['status']}</p>{pay}", problem=problem
    )
