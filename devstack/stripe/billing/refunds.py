"""Refunds of charges, and disputes about them."""

from typing import Any

from devstack.stripe.billing.settings import DAY
from devstack.stripe.fields import merge_metadata
from devstack.stripe.paging import page
from devstack.stripe.problems import StripeProblem
from devstack.stripe.routes import Call, order, route
from devstack.stripe.simulator import Simulator, listen
from devstack.stripe.state import Object

EVIDENCE_DAYS = 9
DECIDING = {"winning_evidence": "won", "losing_evidence": "lost"}


def charge_named(sim: Simulator, params: dict[str, Any]) -> Object:
    """By `charge` or `payment_intent`."""
    if "charge" in params:
        return sim.state.get("charge", params["charge"], param="charge")
    if "payment_intent" in params:
        intent = sim.state.get("payment_intent", params["payment_intent"], param="payment_intent")
        if intent["latest_charge"] is None or intent["status"] != "succeeded":
            raise StripeProblem(
                "This PaymentIntent does not have a successful charge to refund.", param="payment_intent"
            )
        return sim.state.get("charge", intent["latest_charge"])
    raise StripeProblem("Give charge or payment_intent.", code="parameter_missing", param="charge")


def refund(
    sim: Simulator,
    charge: Object,
    amount: int | None,
    *,
    reason: str | None = None,
    metadata: dict[str, str] | None = None,
    param: str = "amount",
) -> Object:
    """Give back `amount` of a charge (None: all that is left)."""
    left = charge["amount_captured"] - charge["amount_refunded"]
    if charge["disputed"]:
        raise StripeProblem(
            "This charge is disputed and cannot be refunded.", code="charge_disputed", param="charge"
        )
    if left <= 0:
        raise StripeProblem(
            f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded", param="charge"
        )
    amount = left if amount is None else amount
    if not 0 < amount <= left:
        raise StripeProblem(
            f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left}).", param=param
        )
    made = sim.state.add(
        {
            "id": sim.state.new_id("re", 24),
            "object": "refund",
            "amount": amount,
            "balance_transaction": None,
            "charge": charge["id"],
            "created": sim.now(charge["customer"]),
            "currency": charge["currency"],
            "destination_details": {"card": {"type": "refund"}, "type": "card"},
            "metadata": metadata or {},
            "payment_intent": charge["payment_intent"],
            "payment_method": charge["payment_method"],
            "reason": reason,
            "receipt_number": None,
            "source_transfer_reversal": None,
            "status": "succeeded",
            "transfer_reversal": None,
        }
    )
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount_captured"]
    sim.emit("refund.created", made)
    sim.emit("charge.refunded", charge)
    return made


@route("POST", "/v1/refunds")
def create_refund(sim: Simulator, call: Call) -> Object:
    params = call.params
    return refund(
        sim,
        charge_named(sim, params),
        params.get("amount"),
        reason=params.get("reason"),
        metadata=params.get("metadata") or {},
    )


@route("GET", "/v1/refunds/{refund}")
def retrieve_refund(sim: Simulator, call: Call) -> Object:
    return sim.state.get("refund", call.path["refund"])


@route("GET", "/v1/refunds")
def list_refunds(sim: Simulator, call: Call) -> Object:
    wanted = call.params
    found = [
        one
        for one in sim.state.all("refund")
        if wanted.get("charge") in (None, one["charge"])
        and wanted.get("payment_intent") in (None, one["payment_intent"])
    ]
    return page(call, found)


def open_dispute(
    sim: Simulator, charge: Object, *, reason: str = "fraudulent", amount: int | None = None
) -> Object:
    """The customer's bank takes the money back until the dispute is closed."""
    now = sim.now(charge["customer"])
    dispute = sim.state.add(
        {
            "id": sim.state.new_id("du", 24),
            "object": "dispute",
            "amount": amount or charge["amount_captured"],
            "balance_transactions": [],
            "charge": charge["id"],
            "created": now,
            "currency": charge["currency"],
            "enhanced_eligibility_types": [],
            "evidence": {"enhanced_evidence": {}},
            "evidence_details": {
                "due_by": now + EVIDENCE_DAYS * DAY,
                "enhanced_eligibility": {},
                "has_evidence": False,
                "past_due": False,
                "submission_count": 0,
                "submission_method": "not_submitted",
            },
            "is_charge_refundable": False,
            "livemode": False,
            "metadata": {},
            "payment_intent": charge["payment_intent"],
            "reason": reason,
            "status": "needs_response",
        }
    )
    charge["disputed"] = True
    sim.emit("charge.dispute.created", dispute)
    sim.emit("charge.dispute.funds_withdrawn", dispute)
    return dispute


def close_dispute(sim: Simulator, dispute: Object, status: str) -> None:
    if dispute["status"] in ("won", "lost"):
        raise StripeProblem(f"The dispute is {dispute['status']} already.", param="dispute")
    dispute["status"] = status
    if status == "won":
        sim.state.get("charge", dispute["charge"])["disputed"] = False
        sim.emit("charge.dispute.funds_reinstated", dispute)
    sim.emit("charge.dispute.closed", dispute)


@route("GET", "/v1/disputes/{dispute}")
def retrieve_dispute(sim: Simulator, call: Call) -> Object:
    return sim.state.get("dispute", call.path["dispute"])


@route("GET", "/v1/disputes")
def list_disputes(sim: Simulator, call: Call) -> Object:
    wanted = call.params
    found = [
        one
        for one in sim.state.all("dispute")
        if wanted.get("charge") in (None, one["charge"])
        and wanted.get("payment_intent") in (None, one["payment_intent"])
    ]
    return page(call, found)


@route("POST", "/v1/disputes/{dispute}")
def update_dispute(sim: Simulator, call: Call) -> Object:
    """Evidence is taken and the dispute goes under review when it is submitted.

    As in Stripe's sandboxes, the texts `winning_evidence` and `losing_evidence` decide it.
    """
    dispute, params = sim.state.get("dispute", call.path["dispute"]), call.params
    with sim.changing(dispute, "charge.dispute.updated"):
        merge_metadata(dispute, params)
        if params.get("evidence"):
            dispute["evidence"] = {**dispute["evidence"], **params["evidence"]}
            dispute["evidence_details"]["has_evidence"] = True
        if params.get("submit") and dispute["status"] == "needs_response":
            dispute["status"] = "under_review"
            dispute["evidence_details"].update(submission_count=1, submission_method="manual")
    decided = DECIDING.get(dispute["evidence"].get("uncategorized_text") or "")
    if decided and dispute["status"] == "under_review":
        close_dispute(sim, dispute, decided)
    return dispute


@route("POST", "/v1/disputes/{dispute}/close")
def accept_dispute(sim: Simulator, call: Call) -> Object:
    """Give it up: lost."""
    dispute = sim.state.get("dispute", call.path["dispute"])
    close_dispute(sim, dispute, "lost")
    return dispute


@order("open_dispute")
def order_dispute(sim: Simulator, given: dict[str, Any]) -> dict[str, Any]:
    """About an `invoice` (id) or a `charge`; `reason`, `amount` if not all of it."""
    if "invoice" in given:
        invoice = sim.state.get("invoice", given.pop("invoice"))
        intent = sim.state.get("payment_intent", invoice["_intent"] or "")
        given["charge"] = intent["latest_charge"] or ""
    dispute = open_dispute(sim, sim.state.get("charge", given.pop("charge")), **given)
    return {"dispute": dispute["id"]}


@order("close_dispute")
def order_close(sim: Simulator, given: dict[str, Any]) -> dict[str, Any]:
    """`dispute` (id) is `won` (True) or lost."""
    dispute = sim.state.get("dispute", given["dispute"])
    close_dispute(sim, dispute, "won" if given["won"] else "lost")
    return {"status": dispute["status"]}


def _card_disputes(sim: Simulator, charge: Object) -> None:
    open_dispute(sim, charge)


listen("charge.to_dispute", _card_disputes)
