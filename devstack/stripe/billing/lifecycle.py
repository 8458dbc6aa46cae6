"""What becomes of an invoice: kept, finalised, paid or not, tried again, voided, given up.

Others hear of it inside the simulator: `invoice.settled` (paid), `invoice.unpaid` (a try failed),
`invoice.exhausted` (the last one did), `invoice.voided`.
"""

from functools import partial

from devstack.stripe.billing import discounts
from devstack.stripe.billing.charging import Charged, charge, make_intent, method_for
from devstack.stripe.billing.invoicing import apply_balance, recount, subscription_of
from devstack.stripe.billing.settings import DAY, HOUR, settings_of
from devstack.stripe.billing.taxes import located
from devstack.stripe.problems import StripeProblem
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object

GRACE_OF_MANUAL = HOUR


def keep(sim: Simulator, invoice: Object) -> Object:
    """Make a draft one of the account's invoices; its once-only discounts are spent when it is finalised."""
    sim.state.add(invoice)
    sim.emit("invoice.created", invoice)
    plan_finalising(sim, invoice)
    return invoice


def plan_finalising(sim: Simulator, invoice: Object) -> None:
    """Have a draft finalise itself at its moment; without auto_advance it waits."""
    if due := invoice.pop("_due", None):
        due.cancel()
    if invoice["status"] != "draft" or not invoice["auto_advance"]:
        return
    when = invoice["automatically_finalizes_at"]
    if when is not None:
        invoice["_due"] = sim.at(when, partial(_finalise_by_itself, sim, invoice), customer=invoice["customer"])


def _finalise_by_itself(sim: Simulator, invoice: Object) -> None:
    if invoice["status"] != "draft" or not invoice["auto_advance"]:
        return
    if finalize(sim, invoice) and invoice["status"] == "open" and _charges_itself(invoice):
        collect(sim, invoice)


def _charges_itself(invoice: Object) -> bool:
    return invoice["collection_method"] == "charge_automatically" and bool(invoice["auto_advance"])


def finalize(sim: Simulator, invoice: Object) -> bool:
    """Number it and fix its amounts. False when taxes cannot be worked out: the invoice stays a draft."""
    now = sim.now(invoice["customer"])
    recount(sim, invoice)
    customer = sim.state.find("customer", invoice["customer"]) or {}
    if invoice["automatic_tax"]["enabled"] and not located(customer).known:
        _refuse_to_finalise(sim, invoice)
        return False
    if due := invoice.pop("_due", None):
        due.cancel()
    _number(sim, invoice, customer)
    invoice.update(status="open", effective_at=now, automatically_finalizes_at=None, last_finalization_error=None)
    invoice["status_transitions"]["finalized_at"] = now
    if not invoice["auto_advance"]:
        invoice["auto_advance"] = False
    _take_balance(sim, invoice, customer)
    invoice["hosted_invoice_url"] = f"{sim.base_url}/_pages/invoices/{invoice['id']}"
    invoice["invoice_pdf"] = f"{invoice['hosted_invoice_url']}/pdf"
    _spend_discounts(sim, invoice)
    if invoice["amount_due"] > 0:
        sub = sim.state.find("subscription", subscription_of(invoice) or "")
        make_intent(sim, invoice, method_for(sim, invoice, sub), now=now)
    sim.emit("invoice.finalized", invoice)
    if invoice["amount_due"] <= 0:
        settle_paid(sim, invoice)
    else:
        sim.tell("invoice.finalised", invoice)
    return True


def _refuse_to_finalise(sim: Simulator, invoice: Object) -> None:
    invoice["automatic_tax"].update(status="requires_location_inputs")
    invoice["last_finalization_error"] = {
        "type": "invalid_request_error",
        "code": "customer_tax_location_invalid",
        "message": "The customer's location isn't recognized. Set a valid customer address in order to "
        "automatically calculate tax.",
    }
    invoice["automatic_tax"]["disabled_reason"] = "finalization_requires_location_inputs"
    sim.emit("invoice.finalization_failed", invoice)


def _number(sim: Simulator, invoice: Object, customer: Object) -> None:
    settings = settings_of(sim)
    if settings.number_series == "customer":
        prefix = customer.get("invoice_prefix") or settings.invoice_prefix
        number = customer.get("next_invoice_sequence") or 1
        customer["next_invoice_sequence"] = number + 1
    else:
        prefix = settings.invoice_prefix
        number = 1 + sum(1 for one in sim.state.all("invoice") if one["number"])
    invoice["number"] = f"{prefix}-{number:04d}"


def _take_balance(sim: Simulator, invoice: Object, customer: Object) -> None:
    before = customer.get("balance") or 0
    after = apply_balance(invoice, before)
    invoice["ending_balance"] = after
    if after != before:
        from devstack.stripe.billing.balances import change_balance

        change_balance(
            sim,
            customer,
            after - before,
            kind="applied_to_invoice",
            currency=invoice["currency"],
            invoice=invoice["id"],
        )


def _spend_discounts(sim: Simulator, invoice: Object) -> None:
    """A `once` discount that took something is over."""
    for one in invoice["total_discount_amounts"]:
        if one["amount"] and discounts.is_once(sim, one["discount"]):
            discounts.end(sim, one["discount"], emit=False)


def collect(sim: Simulator, invoice: Object, *, method: Object | None = None, by_hand: bool = False) -> Charged:
    """Try to be paid once, and say what came of it. A try `by_hand` leaves the schedule of retries as it is."""
    now = sim.now(invoice["customer"])
    sub = sim.state.find("subscription", subscription_of(invoice) or "")
    invoice["attempted"] = True
    invoice["attempt_count"] += 1
    outcome = charge(sim, invoice, method or method_for(sim, invoice, sub), now=now)
    if outcome.paid:
        invoice["amount_paid"] = invoice["amount_remaining"]
        settle_paid(sim, invoice)
        return outcome
    if not by_hand:
        _plan_retry(sim, invoice, sub, now=now)
    if outcome.needs_action:
        sim.emit("invoice.payment_action_required", invoice)
    sim.emit("invoice.payment_failed", invoice)
    _set_delinquent(sim, invoice["customer"], delinquent=True)
    sim.tell("invoice.unpaid", invoice)
    if invoice.pop("_exhausted", False):
        sim.tell("invoice.exhausted", invoice)
    return outcome


def _plan_retry(sim: Simulator, invoice: Object, sub: Object | None, *, now: int) -> None:
    if due := invoice.pop("_due", None):
        due.cancel()
    invoice["next_payment_attempt"] = None
    if (
        sub is None
        or sub["status"] in ("incomplete", "incomplete_expired", "canceled")
        or not invoice["auto_advance"]
    ):
        return
    if invoice.get("_waits_for_update"):
        return
    days = settings_of(sim).retry_days
    tried = invoice["_tries"] = invoice.get("_tries", -1) + 1
    if tried >= len(days):
        invoice["_exhausted"] = True
        return
    when = now + int(days[tried] * DAY)
    invoice["next_payment_attempt"] = when
    invoice["_due"] = sim.at(when, partial(_retry, sim, invoice), customer=invoice["customer"])


def _retry(sim: Simulator, invoice: Object) -> None:
    if invoice["status"] == "open" and invoice["auto_advance"]:
        collect(sim, invoice)


def settle_paid(sim: Simulator, invoice: Object) -> None:
    """The invoice is paid: by card, by balance, or outside of Stripe."""
    now = sim.now(invoice["customer"])
    if due := invoice.pop("_due", None):
        due.cancel()
    invoice.update(
        status="paid", auto_advance=False, attempted=True, amount_remaining=0, next_payment_attempt=None
    )
    invoice["status_transitions"]["paid_at"] = now
    sim.emit("invoice.paid", invoice)
    sim.emit("invoice.payment_succeeded", invoice)
    _set_delinquent(sim, invoice["customer"], delinquent=False)
    sim.tell("invoice.settled", invoice)


def _set_delinquent(sim: Simulator, customer_id: str, *, delinquent: bool) -> None:
    customer = sim.state.find("customer", customer_id)
    if customer is None or customer.get("delinquent") == delinquent:
        return
    open_failed = any(one["attempted"] for one in sim.state.where("invoice", customer=customer_id, status="open"))
    if delinquent != open_failed and not delinquent:
        return
    with sim.changing(customer, "customer.updated"):
        customer["delinquent"] = delinquent


def void(sim: Simulator, invoice: Object) -> None:
    """Only an open or uncollectible one."""
    _must_be(invoice, ("open", "uncollectible"), "voided")
    _leave(sim, invoice, "void", "voided_at")
    _give_back_balance(sim, invoice)
    sim.emit("invoice.voided", invoice)
    sim.tell("invoice.voided", invoice)


def _give_back_balance(sim: Simulator, invoice: Object) -> None:
    from devstack.stripe.billing.balances import change_balance

    used = (invoice["ending_balance"] or 0) - invoice["starting_balance"]
    customer = sim.state.find("customer", invoice["customer"])
    if used and customer:
        change_balance(
            sim,
            customer,
            -used,
            kind="unapplied_from_invoice",
            currency=invoice["currency"],
            invoice=invoice["id"],
        )


def mark_uncollectible(sim: Simulator, invoice: Object) -> None:
    _must_be(invoice, ("open",), "marked uncollectible")
    _leave(sim, invoice, "uncollectible", "marked_uncollectible_at")
    sim.emit("invoice.marked_uncollectible", invoice)


def _leave(sim: Simulator, invoice: Object, status: str, moment: str) -> None:
    if due := invoice.pop("_due", None):
        due.cancel()
    invoice.update(status=status, auto_advance=False, next_payment_attempt=None)
    invoice["status_transitions"][moment] = sim.now(invoice["customer"])


def _must_be(invoice: Object, statuses: tuple[str, ...], doing: str) -> None:
    if invoice["status"] not in statuses:
        raise StripeProblem(
            f"This invoice cannot be {doing}: it is {invoice['status']}.",
            code="invoice_not_editable",
            param="invoice",
        )


def stop_collecting(sim: Simulator, sub_id: str) -> None:
    """Of a subscription that ended: its open invoices are tried no more."""
    for invoice in sim.state.all("invoice"):
        if subscription_of(invoice) == sub_id and invoice["status"] == "open" and invoice["auto_advance"]:
            if due := invoice.pop("_due", None):
                due.cancel()
            with sim.changing(invoice, "invoice.updated"):
                invoice["auto_advance"] = False
                invoice["next_payment_attempt"] = None
