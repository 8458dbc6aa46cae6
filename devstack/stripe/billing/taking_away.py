"""What is owed or given back when items of a subscription go, or rest: billed at once, or kept for later."""

from devstack.stripe.billing.billing_run import bill
from devstack.stripe.billing.changes import work_out
from devstack.stripe.billing.items import Wanted
from devstack.stripe.billing.lifecycle import collect
from devstack.stripe.billing.lines import is_metered
from devstack.stripe.billing.pending import keep_pending
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object


def bill_taken_away(sim: Simulator, sub: Object, *, usage: bool, unused: bool, at_once: bool, now: int) -> None:
    """`usage`: what metered items have counted; `unused`: time of the others that was paid ahead."""
    wanted = [
        Wanted(item, None) for item in sub["items"]["data"] if (usage if is_metered(item["price"]) else unused)
    ]
    change = work_out(sim, sub, wanted, at=now, prorate=unused)
    if not at_once:
        customer = sim.state.get("customer", sub["customer"])
        for line in change.lines:
            keep_pending(sim, customer, line, now=now)
        return
    start = min(item["current_period_start"] for item in sub["items"]["data"])
    invoice = bill(
        sim,
        sub,
        (),
        changes=change.lines,
        reason="subscription_update",
        now=now,
        period=(start, now),
        at_once=True,
    )
    if invoice and invoice["status"] == "open" and sub["collection_method"] == "charge_automatically":
        collect(sim, invoice)
