"""Reads what the product holds: events, rollups, invoices, counters; and what its upstream and its disk hold."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from control_plane.foundation.clock import to_ms
from devstack.demo.control import ControlClient
from devstack.soak.customers import Customer
from devstack.soak.key_search import KeySearch
from devstack.soak.ledger import AGAIN
from devstack.stack import Stack
from devstack.stores.valkey_cluster import open_redis
from gateway_contract import counters, redis_names

Group = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """What the checks need of one event."""

    path: str
    event_id: str
    account_id: str
    key_id: str
    mode: str
    outcome: str
    status: int
    units: int
    tokens: int
    decided_ms: int
    flags: tuple[str, ...]

    @property
    def emitter(self) -> str:
        return self.event_id.rpartition("-")[0]


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request that reached the upstream. `ended_ms` is just before its answer left, 0 where none did."""

    path: str
    account_id: str
    at_ms: int
    ended_ms: int = 0


@dataclass(frozen=True, slots=True)
class Billing:
    """One customer's invoice preview, and how its period is named in Redis.

    Units are of each dimension, money is in minor units; `cap_minor` is the spend cap, where there is one.
    """

    used_units: dict[str, int]
    period_start_ms: int
    total_minor: int = 0
    cap_minor: int | None = None


async def read_events(
    control: ControlClient, customers: Sequence[Customer], search: KeySearch | None = None
) -> list[StoredEvent]:
    """Return all events. With `search` each is looked at, whole, for keys."""
    sources = [f"/accounts/{customer.account_id}/events" for customer in customers] + ["/unattributed-events"]
    events = []
    for source in sources:
        async for item in control.pages(source):
            if search is not None:
                search.look_at(json.dumps(item).encode(), f"event {item['event_id']}")
            events.append(
                StoredEvent(
                    path=item["path"],
                    event_id=item["event_id"],
                    account_id=item["account_id"],
                    key_id=item["key_id"],
                    mode=item["mode"],
                    outcome=item["outcome"],
                    status=item["status"],
                    units=item["units"],
                    tokens=item["dimensions"].get("tokens", 0),
                    decided_ms=to_ms(datetime.fromisoformat(item["occurred_at"])),
                    flags=tuple(item["flags"]),
                )
            )
    return events


async def read_replayed(control: ControlClient, customer: Customer) -> int:
    """Return how many live calls the rollups hold as repeated answers that are not billed."""
    answer = await control.get(f"/accounts/{customer.account_id}/usage", [("mode", "live")])
    return sum(row["replayed_calls"] for row in answer["items"])


async def read_rollups(control: ControlClient) -> Counter[Group]:
    """Return calls by account, status, outcome and mode."""
    answer = await control.get("/usage", [("group_by", name) for name in ("account", "status", "outcome", "mode")])
    found: Counter[Group] = Counter()
    for row in answer["items"]:
        by = row["by"]
        found[by["account"], by["status"], by["outcome"], by["mode"]] += row["calls"]
    return found


async def read_billing(control: ControlClient, customer: Customer) -> Billing:
    path = f"/accounts/{customer.account_id}/invoices/preview/{customer.role.product}"
    preview = await control.get(path)
    cap = preview["spend_cap"]
    return Billing(
        used_units=preview["used_units"],
        period_start_ms=to_ms(datetime.fromisoformat(preview["period"]["start"])),
        total_minor=preview["total"]["amount_minor"],
        cap_minor=cap and cap["cap"]["amount_minor"],
    )


async def read_billed_hours(control: ControlClient, customer: Customer) -> dict[int, int]:
    """Return billed units of live calls by hour number."""
    params = [("group_by", "hour"), ("mode", "live")]
    answer = await control.get(f"/accounts/{customer.account_id}/usage", params)
    return {
        counters.hour_number(to_ms(datetime.fromisoformat(row["by"]["hour"]))): row["billable_units"]
        for row in answer["items"]
    }


def read_counters(stack: Stack, customer: Customer, period_start_ms: int) -> dict[str, int]:
    """Return the fields of the subscription's counters in the current period."""
    name = redis_names.period_counters(
        customer.account_id, customer.subscription_id, period_start_ms, customer.role.mode
    )
    with contextlib.closing(open_redis(stack.redis_url)) as client:
        found = client.hgetall(name)
        return {field.decode(): int(value) for field, value in found.items() if field.decode() != counters.SKIPPED}


def read_arrivals(path: Path) -> Iterator[Arrival]:
    """Yield what reached the upstream. A line that a killed upstream left unfinished is passed over."""
    begun, ended_ms = [], {}
    with path.open() as lines:
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if "ended_ms" in entry:
                ended_ms[entry["call"]] = entry["ended_ms"]
            else:
                begun.append(entry)
    for entry in begun:
        sent = entry["headers"]
        again = f"{AGAIN}{sent['x-again']}" if "x-again" in sent else ""
        yield Arrival(
            path=entry["path"] + again,
            account_id=sent.get("x-km-account", ""),
            at_ms=entry["at_ms"],
            ended_ms=ended_ms.get(entry["call"], 0),
        )
