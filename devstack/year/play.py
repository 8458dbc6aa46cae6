"""Plays the year: from one due moment to the next, people's steps first, then the workers."""

import heapq
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from devstack.year.calls import Call, Numbers, calls_of
from devstack.year.model import Do, Story, Use
from devstack.year.workers import next_due, work
from devstack.year.world import World

PLANS = Path(__file__).with_name("plans.yml")
PAY_DAYS = (6, 20)
PAY_HOUR = 12
Told = Callable[[datetime], None]


@dataclass(slots=True)
class Played:
    """What was done, and the names by which the product knows customers.

    `calls`: all that arrived while they could be counted; `voided`: those of them that a dispute took out again;
    `lost`: those that arrived too late.
    """

    calls: list[Call] = field(default_factory=list)
    voided: list[Call] = field(default_factory=list)
    lost: list[Call] = field(default_factory=list)
    known: dict[str, dict[str, str]] = field(default_factory=dict)
    moments: int = 0

    def account(self, name: str) -> str:
        return self.known[name]["account"]


async def play(world: World, stories: Sequence[Story], *, until: datetime, told: Told = lambda _: None) -> Played:
    """Set the catalogue and the customers up, and let time come to `until`; `told` hears of every moment.

    Raises:
        RefusedError: the API refused a step.
    """
    played, numbers = Played(), Numbers()
    await world.ask("POST", "/plans/apply", yaml=PLANS.read_text())
    agenda, order = _Agenda(), count()
    for story in stories:
        await _set_up(world, story, played)
        for step in story.steps:
            agenda.add(step.at, next(order), partial(_do, world, story, step, played))
        for use in story.usage:
            agenda.add(use.arrives_at, next(order), partial(_arrive, world, story, use, played, numbers))
    for day in pay_days(world.clock.now, until):
        agenda.add(day, next(order), partial(_pay, world, stories, played))
    await work(world)
    while (moment := await _next_moment(world, agenda)) is not None and moment <= until:
        world.clock.now = moment
        for due in agenda.take(moment):
            await due()
        await work(world)
        played.moments += 1
        told(moment)
    return played


@dataclass(slots=True)
class _Agenda:
    """What people and gateways do, in order of time."""

    waiting: list[tuple[datetime, int, Callable[[], Awaitable[None]]]] = field(default_factory=list)

    def add(self, moment: datetime, order: int, what: Callable[[], Awaitable[None]]) -> None:
        heapq.heappush(self.waiting, (moment, order, what))

    def take(self, moment: datetime) -> list[Callable[[], Awaitable[None]]]:
        due = []
        while self.waiting and self.waiting[0][0] <= moment:
            due.append(heapq.heappop(self.waiting)[2])
        return due


async def _next_moment(world: World, agenda: _Agenda) -> datetime | None:
    planned = agenda.waiting[0][0] if agenda.waiting else None
    return min((moment for moment in (planned, await next_due(world)) if moment is not None), default=None)


def pay_days(start: datetime, end: datetime) -> list[datetime]:
    """Return the noons of the 6th and the 20th: then money comes in for every invoice that is open."""
    days = [start.replace(hour=PAY_HOUR) + timedelta(days=number) for number in range((end - start).days + 1)]
    return [day for day in days if day.day in PAY_DAYS]


async def _set_up(world: World, story: Story, played: Played) -> None:
    known = played.known[story.name] = {}
    body = _filled({"name": story.name, **story.account}, _names(played, story))
    known["account"] = (await world.ask("POST", "/accounts", body))["id"]
    key = await world.ask("POST", f"/accounts/{known['account']}/keys", {"name": "server", "mode": "live"})
    world.gateway.keys[known["account"]] = key["key"]["id"]


async def _do(world: World, story: Story, step: Do, played: Played) -> None:
    names = _names(played, story)
    answer = await world.ask(step.method, step.path.format_map(names), _filled(step.body, names))
    for name, found in step.save.items():
        played.known[story.name][name] = _field(answer, found)


def _field(answer: Any, path: str) -> str:
    for part in path.split("."):
        answer = answer[int(part)] if part.isdigit() else answer[part]
    return str(answer)


def _names(played: Played, story: Story) -> dict[str, str]:
    """Return what is known of the customer by name, and of others as `Name_what`."""
    others = {f"{name}_{what}": value for name, known in played.known.items() for what, value in known.items()}
    return others | played.known[story.name]


def _filled(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return value.format_map(names)
    if isinstance(value, Mapping):
        return {key: _filled(one, names) for key, one in value.items()}
    return [_filled(one, names) for one in value] if isinstance(value, list) else value


async def _arrive(world: World, story: Story, use: Use, played: Played, numbers: Numbers) -> None:
    calls = calls_of(use, played.account(story.name), numbers)
    (played.lost if use.lost else played.calls).extend(calls)
    if use.voided:
        played.voided.extend(calls)
    await world.gateway.ship(calls)


async def _pay(world: World, stories: Sequence[Story], played: Played) -> None:
    unpaid = {played.account(story.name) for story in stories if world.clock.now.replace(hour=0) in story.unpaid}
    waiting = [invoice async for invoice in world.pages("/invoices?status=open")]
    for invoice in sorted(waiting, key=lambda one: str(one["number"])):
        if invoice["account_id"] not in unpaid:
            await world.ask(
                "POST", f"/invoices/{invoice['id']}/pay", {"reference": f"transfer for {invoice['number']}"}
            )
