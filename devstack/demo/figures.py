"""Reads what the product holds, and compares it with the client's ledger."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from devstack.demo.control import ControlClient
from devstack.demo.ledger import NOBODY, Ledger
from devstack.demo.report import Check, InvoiceLine, InvoiceView, UsageRow
from devstack.demo.scenario import PRODUCT, Customer

SERVED = "served"
FIRST_FAILURE_STATUS = 500
POLL_SECONDS = 0.25

Stored = Counter[tuple[str, str, int, str]]


async def wait_for_rollups(control: ControlClient, wanted: int, *, timeout_seconds: float) -> float:
    """Wait until the rollups hold that many calls; return the seconds it took, at most `timeout_seconds`."""
    started = time.monotonic()
    while time.monotonic() - started < timeout_seconds:
        if sum(row.calls for row in await read_usage(control, ())) >= wanted:
            break
        await asyncio.sleep(POLL_SECONDS)
    return time.monotonic() - started


async def read_usage(control: ControlClient, customers: Sequence[Customer]) -> tuple[UsageRow, ...]:
    """Return the rollups by account, endpoint, status and outcome, accounts in the given order."""
    names = {customer.account_id: customer.name for customer in customers} | {"": NOBODY}
    order = {customer.account_id: number for number, customer in enumerate(customers)}
    params = [("group_by", field) for field in ("account", "endpoint", "status", "outcome")]
    answer = await control.get("/usage", params)
    found = sorted(
        answer["items"],
        key=lambda item: (
            order.get(item["by"]["account"], len(order)),
            item["by"]["outcome"] != SERVED,
            -item["calls"],
        ),
    )
    return tuple(
        UsageRow(
            account=names.get(item["by"]["account"], item["by"]["account"]),
            endpoint=item["by"]["endpoint"],
            status=int(item["by"]["status"]),
            outcome=item["by"]["outcome"],
            calls=item["calls"],
        )
        for item in found
    )


async def count_events(control: ControlClient, customers: Sequence[Customer]) -> Stored:
    """Count the stored events one by one, by account name, endpoint, status and outcome."""
    stored: Stored = Counter()
    paths = {customer.name: f"/accounts/{customer.account_id}/events" for customer in customers}
    paths[NOBODY] = "/unattributed-events"
    for name, path in paths.items():
        async for event in control.pages(path):
            stored[name, event["endpoint"], event["status"], event["outcome"]] += 1
    return stored


async def read_invoices(control: ControlClient, customers: Sequence[Customer]) -> tuple[InvoiceView, ...]:
    """Return each customer's invoice preview."""
    return tuple([await _invoice(control, customer) for customer in customers])


async def _invoice(control: ControlClient, customer: Customer) -> InvoiceView:
    preview: dict[str, Any] = await control.get(f"/accounts/{customer.account_id}/invoices/preview/{PRODUCT}")
    start, end = (preview["period"][edge][:10] for edge in ("start", "end"))
    return InvoiceView(
        account=customer.name,
        plan=customer.plan_name,
        period=f"{start} to {end}",
        lines=tuple(
            InvoiceLine(description=line["description"], formula=line["formula"], amount=line["amount"]["text"])
            for line in preview["lines"]
        ),
        total=preview["total"]["text"],
        billable_units=preview["used_units"]["requests"],
        quota_units=preview["quota"] and preview["quota"]["quota_units"],
    )


def compare(
    ledger: Ledger, usage: Sequence[UsageRow], stored: Stored, invoices: Sequence[InvoiceView]
) -> tuple[Check, ...]:
    """Return one check for every figure of the client."""
    rollups: Stored = Counter()
    for row in usage:
        rollups[row.account, row.endpoint, row.status, row.outcome] += row.calls
    checks = [
        Check("all requests", ledger.total, {"events": stored.total(), "rollups": rollups.total()}),
    ]
    for invoice in invoices:
        billable = sum(
            count
            for answer, count in ledger.counts.items()
            if answer.caller == invoice.account and answer.code == SERVED and answer.status < FIRST_FAILURE_STATUS
        )
        checks.append(Check(f"{invoice.account}: billable", billable, {"invoice": invoice.billable_units}))
    for caller, status, code in sorted(ledger.by("caller", "status", "code")):
        wanted = {"caller": caller, "status": status, "code": code}
        checks.append(
            Check(
                f"{caller}: {status} {code}",
                ledger.calls(**wanted),
                {
                    "events": _calls(stored, str(caller), int(status), str(code)),
                    "rollups": _calls(rollups, str(caller), int(status), str(code)),
                },
            )
        )
    checks += _by_endpoint(ledger, stored, rollups)
    return tuple(checks)


def _by_endpoint(ledger: Ledger, stored: Stored, rollups: Stored) -> list[Check]:
    """Return one check a caller and endpoint for calls that belong to an account."""
    checks = []
    for caller, endpoint in sorted(ledger.by("caller", "endpoint")):
        if caller == NOBODY:
            continue
        product = {
            source: sum(count for key, count in counts.items() if key[:2] == (caller, endpoint))
            for source, counts in (("events", stored), ("rollups", rollups))
        }
        checks.append(
            Check(f"{caller}: {endpoint}", ledger.calls(caller=str(caller), endpoint=str(endpoint)), product)
        )
    return checks


def _calls(counts: Stored, caller: str, status: int, outcome: str) -> int:
    wanted = (caller, status, outcome)
    return sum(count for (name, _, code, found), count in counts.items() if (name, code, found) == wanted)
