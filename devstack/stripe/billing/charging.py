"""Charging a card for an invoice: payment intents, charges, invoice payments."""

from dataclasses import dataclass

from devstack.stripe.billing.cards import card_of
from devstack.stripe.paging import page
from devstack.stripe.rendering import field_holds
from devstack.stripe.routes import Call, route
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object

field_holds("latest_charge", "charge")


@dataclass(frozen=True)
class Charged:
    """How a try to pay went. `code`: why not."""

    paid: bool
    code: str | None = None
    needs_action: bool = False
    intent: str | None = None


def method_for(sim: Simulator, invoice: Object, sub: Object | None) -> Object | None:
    """The card that Stripe would take: the invoice's, the subscription's, the customer's."""
    customer = sim.state.find("customer", invoice["customer"]) or {}
    candidates = (
        invoice["default_payment_method"],
        sub and sub["default_payment_method"],
        (customer.get("invoice_settings") or {}).get("default_payment_method"),
    )
    return next((sim.state.find("payment_method", one) for one in candidates if one), None)


def make_intent(sim: Simulator, invoice: Object, method: Object | None, *, now: int) -> Object:
    """The payment intent of an open invoice, with its invoice payment. Made once for each invoice."""
    if invoice["_intent"]:
        return sim.state.get("payment_intent", invoice["_intent"])
    identifier = sim.state.new_id("pi", 24)
    intent = sim.state.add(
        {
            "id": identifier,
            "object": "payment_intent",
            "amount": invoice["amount_remaining"],
            "amount_capturable": 0,
            "amount_received": 0,
            "application": None,
            "application_fee_amount": None,
            "automatic_payment_methods": None,
            "canceled_at": None,
            "cancellation_reason": None,
            "capture_method": "automatic",
            "client_secret": f"{identifier}_secret_{sim.state.new_token(24)}",
            "confirmation_method": "automatic",
            "created": now,
            "currency": invoice["currency"],
            "customer": invoice["customer"],
            "customer_account": None,
            "description": f"Invoice {invoice['number']}",
            "last_payment_error": None,
            "latest_charge": None,
            "livemode": False,
            "metadata": {},
            "next_action": None,
            "on_behalf_of": None,
            "payment_method": method["id"] if method else None,
            "payment_method_types": ["card"],
            "processing": None,
            "receipt_email": None,
            "review": None,
            "setup_future_usage": "off_session",
            "shipping": None,
            "source": None,
            "statement_descriptor": None,
            "statement_descriptor_suffix": None,
            "status": "requires_confirmation" if method else "requires_payment_method",
            "transfer_data": None,
            "transfer_group": None,
        }
    )
    invoice["_intent"] = identifier
    sim.state.add(
        {
            "id": sim.state.new_id("inpay", 24),
            "object": "invoice_payment",
            "amount_paid": None,
            "amount_requested": invoice["amount_remaining"],
            "created": now,
            "currency": invoice["currency"],
            "invoice": invoice["id"],
            "is_default": True,
            "livemode": False,
            "payment": {"type": "payment_intent", "payment_intent": identifier},
            "status": "open",
            "status_transitions": {"canceled_at": None, "paid_at": None},
        }
    )
    sim.emit("payment_intent.created", intent)
    return intent


def will_pay(method: Object | None) -> Charged:
    """What a charge of this card would come to, without charging."""
    if method is None:
        return Charged(paid=False, code="payment_method_missing")
    card = card_of(method)
    if card.declines:
        return Charged(paid=False, code=card.declines)
    if card.needs_action and not method.get("_authenticated"):
        return Charged(paid=False, code="authentication_required", needs_action=True)
    return Charged(paid=True)


def charge(sim: Simulator, invoice: Object, method: Object | None, *, now: int) -> Charged:
    """Try the card once; the intent, the charge and their events tell how it went."""
    intent = make_intent(sim, invoice, method, now=now)
    outcome = will_pay(method)
    if method is None:
        return Charged(paid=False, code=outcome.code, intent=intent["id"])
    intent["payment_method"] = method["id"]
    if outcome.needs_action:
        intent["status"] = "requires_action"
        intent["next_action"] = {"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "three_d_secure_redirect"}}
        sim.emit("payment_intent.requires_action", intent)
        return Charged(paid=False, code=outcome.code, needs_action=True, intent=intent["id"])
    made = _charge(sim, invoice, intent, method, outcome, now=now)
    intent["latest_charge"] = made["id"]
    intent["next_action"] = None
    if not outcome.paid:
        intent["status"] = "requires_payment_method"
        intent["last_payment_error"] = {
            "type": "card_error",
            "code": "card_declined",
            "decline_code": outcome.code,
            "message": made["failure_message"],
            "charge": made["id"],
        }
        sim.emit("charge.failed", made)
        sim.emit("payment_intent.payment_failed", intent)
        return Charged(paid=False, code=outcome.code, intent=intent["id"])
    intent.update(status="succeeded", amount_received=intent["amount"], last_payment_error=None)
    _mark_paid(sim, invoice, now=now)
    sim.emit("charge.succeeded", made)
    sim.emit("payment_intent.succeeded", intent)
    if card_of(method).disputed:
        sim.tell("charge.to_dispute", made)
    return Charged(paid=True, intent=intent["id"])


def _mark_paid(sim: Simulator, invoice: Object, *, now: int) -> None:
    for payment in sim.state.where("invoice_payment", invoice=invoice["id"], status="open"):
        payment["status"] = "paid"
        payment["amount_paid"] = payment["amount_requested"]
        payment["status_transitions"] = {"canceled_at": None, "paid_at": now}
        sim.emit("invoice_payment.paid", payment)


def _charge(
    sim: Simulator, invoice: Object, intent: Object, method: Object, outcome: Charged, *, now: int
) -> Object:
    failed = not outcome.paid
    card = method["card"]
    return sim.state.add(
        {
            "id": sim.state.new_id("ch", 24),
            "object": "charge",
            "amount": intent["amount"],
            "amount_captured": 0 if failed else intent["amount"],
            "amount_refunded": 0,
            "application": None,
            "application_fee": None,
            "application_fee_amount": None,
            "balance_transaction": None,
            "billing_details": method["billing_details"],
            "calculated_statement_descriptor": "KONG MONETIZE",
            "captured": not failed,
            "created": now,
            "currency": invoice["currency"],
            "customer": invoice["customer"],
            "description": intent["description"],
            "disputed": False,
            "failure_balance_transaction": None,
            "failure_code": "card_declined" if failed else None,
            "failure_message": "Your card was declined." if failed else None,
            "fraud_details": {},
            "livemode": False,
            "metadata": {},
            "on_behalf_of": None,
            "outcome": None,
            "paid": not failed,
            "payment_intent": intent["id"],
            "payment_method": method["id"],
            "payment_method_details": {
                "card": {
                    "brand": card["brand"],
                    "last4": card["last4"],
                    "exp_month": card["exp_month"],
                    "exp_year": card["exp_year"],
                    "funding": card["funding"],
                    "country": card["country"],
                },
                "type": "card",
            },
            "receipt_email": None,
            "receipt_number": None,
            "receipt_url": None,
            "refunded": False,
            "review": None,
            "shipping": None,
            "source": None,
            "source_transfer": None,
            "statement_descriptor": None,
            "statement_descriptor_suffix": None,
            "status": "failed" if failed else "succeeded",
            "transfer_data": None,
            "transfer_group": None,
            "_invoice": invoice["id"],
        }
    )


@route("GET", "/v1/payment_intents/{intent}")
def retrieve_intent(sim: Simulator, call: Call) -> Object:
    return sim.state.get("payment_intent", call.path["intent"])


@route("GET", "/v1/payment_intents")
def list_intents(sim: Simulator, call: Call) -> Object:
    wanted = call.params.get("customer")
    return page(call, [one for one in sim.state.all("payment_intent") if wanted in (None, one["customer"])])


@route("GET", "/v1/charges/{charge}")
def retrieve_charge(sim: Simulator, call: Call) -> Object:
    return sim.state.get("charge", call.path["charge"])


@route("GET", "/v1/charges")
def list_charges(sim: Simulator, call: Call) -> Object:
    wanted = call.params
    found = [
        one
        for one in sim.state.all("charge")
        if wanted.get("customer") in (None, one["customer"])
        and wanted.get("payment_intent") in (None, one["payment_intent"])
    ]
    return page(call, found)


@route("GET", "/v1/invoice_payments")
def list_invoice_payments(sim: Simulator, call: Call) -> Object:
    wanted = call.params
    payment = wanted.get("payment", {})
    found = [
        one
        for one in sim.state.all("invoice_payment")
        if wanted.get("invoice") in (None, one["invoice"])
        and wanted.get("status") in (None, one["status"])
        and payment.get("payment_intent") in (None, one["payment"].get("payment_intent"))
    ]
    return page(call, found)


@route("GET", "/v1/invoice_payments/{invoice_payment}")
def retrieve_invoice_payment(sim: Simulator, call: Call) -> Object:
    return sim.state.get("invoice_payment", call.path["invoice_payment"])
