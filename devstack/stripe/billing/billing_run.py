"""Invoices of subscriptions: gathering lines and invoice items, and making the invoice."""

from collections.abc import Sequence
from typing import Any

from devstack.stripe.billing.invoicing import make_draft
from devstack.stripe.billing.lifecycle import finalize, keep
from devstack.stripe.billing.pending import gather, keep_pending, put_on
from devstack.stripe.billing.settings import settings_of
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object


def preview_invoice(
    sim: Simulator,
    sub: Object,
    lines: Sequence[Object],
    *,
    reason: str,
    now: int,
    period: tuple[int, int],
    **given: Any,
) -> Object:
    """As `bill` would make it, kept nowhere. Waiting invoice items are on it."""
    customer = sim.state.get("customer", sub["customer"])
    waiting = [{**one["_line"]} for one in gather(sim, customer["id"], sub["id"], sub["currency"])]
    given.setdefault("discounts", list(sub["discounts"]))
    return make_draft(
        sim,
        customer=customer,
        sub=sub,
        lines=[*waiting, *lines],
        reason=reason,
        now=now,
        period=period,
        preview=True,
        **given,
    )


def bill(
    sim: Simulator,
    sub: Object,
    lines: Sequence[Object],
    *,
    reason: str,
    now: int,
    period: tuple[int, int],
    changes: Sequence[Object] = (),
    at_once: bool,
    even_empty: bool = False,
    **given: Any,
) -> Object | None:
    """Make the invoice of a subscription. None when it would have no lines.

    `changes` are lines that become invoice items first. `at_once`: finalised here (not paid); else a draft that
    waits out the grace.
    """
    customer = sim.state.get("customer", sub["customer"])
    for line in changes:
        keep_pending(sim, customer, line, now=now)
    items = gather(sim, customer["id"], sub["id"], sub["currency"])
    together = [*(one["_line"] for one in items), *lines]
    if not together and not even_empty:
        return None
    given.setdefault("discounts", list(sub["discounts"]))
    given.setdefault("auto_advance", True)
    grace = settings_of(sim).grace_seconds
    invoice = make_draft(
        sim,
        customer=customer,
        sub=sub,
        lines=together,
        reason=reason,
        now=now,
        period=period,
        automatically_finalizes_at=now if at_once else (now + grace if given["auto_advance"] else None),
        default_payment_method=None,
        **given,
    )
    if at_once:
        invoice["automatically_finalizes_at"] = None
    put_on(invoice, items)
    keep(sim, invoice)
    sub["latest_invoice"] = invoice["id"]
    if at_once:
        finalize(sim, invoice)
    return invoice
