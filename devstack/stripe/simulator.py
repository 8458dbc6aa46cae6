"""The simulated account: its objects, its time, its news."""

import copy
import random
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from devstack.stripe.clock import Action, Clock, Due
from devstack.stripe.contract.events import event_problem
from devstack.stripe.events import Deliveries, make_event, make_thin_event
from devstack.stripe.rendering import render
from devstack.stripe.state import Object, State

API_VERSION = "2026-10-28.endive"
ACCOUNT_ID = "acct_1KongMonetizeSim"

Listener = Callable[["Simulator", Object], None]


@dataclass(frozen=True)
class SimulatorConfig:
    """`aggregation_seconds`: how long a meter event takes to show in summaries and invoices."""

    seed: int = 0
    aggregation_seconds: int = 0
    requests_per_second: int = 0
    """0: no limit; Stripe's sandboxes have 25."""
    meter_event_seconds: float = 0.0
    """How long a meter event takes to be answered; only one at a time is taken for a customer and meter."""
    webhook_attempts: int = 16
    twin_events: float = 0.0
    """The part of facts that are told by two events with ids of their own."""
    whole_positive_values: bool = False
    """Report meter events with negative or broken values as invalid, as Stripe once did for all."""


LISTENERS: dict[str, list[Listener]] = {}


def listen(topic: str, listener: Listener) -> None:
    """Have `listener(sim, object)` called inside the request in which `sim.tell(topic, object)` is said."""
    LISTENERS.setdefault(topic, []).append(listener)


class Simulator:
    """Everything a handler works with. One thread."""

    def __init__(self, config: SimulatorConfig | None = None) -> None:
        self.deliveries = Deliveries()
        self.started_with = config or SimulatorConfig()
        self.base_url = ""
        self.reset()

    def reset(self) -> None:
        """An empty account at the machine's time."""
        self.config = self.started_with
        self.state = State(self.config.seed)
        self.dice = random.Random(self.config.seed)  # noqa: S311 - tests repeat it
        self.clock = Clock()
        self.test_clocks: dict[str, Clock] = {}
        self.deliveries.log.clear()
        self.violations: list[dict[str, Any]] = []
        self.soon: list[Action] = []
        self.features: dict[str, Any] = {}
        """What a feature keeps that is no object of Stripe's."""
        self.request: tuple[str | None, str | None] = (None, None)
        """Id and idempotency key of the request being worked on, for the events it makes."""

    def __getstate__(self) -> dict[str, Any]:
        """All but what is on its way out: see `keeping`."""
        return {name: value for name, value in self.__dict__.items() if name != "deliveries"}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        self.__dict__.update(kept)
        self.deliveries = Deliveries()

    # time

    def clock_of(self, customer: str | None = None) -> Clock:
        """The test clock of a customer (an id; deleted ones too), else the simulator's own."""
        kept = (
            self.state.find("customer", customer) or self.state.former("customer", customer) if customer else None
        )
        name = kept.get("test_clock") if kept else None
        return self.test_clocks.get(name, self.clock) if name else self.clock

    def now(self, customer: str | None = None) -> int:
        """Seconds since 1970 on the customer's clock."""
        return self.clock_of(customer).now()

    def at(self, when: int, action: Action, *, customer: str | None = None) -> Due:
        """Do something at a moment of the customer's clock; `.cancel()` on the answer takes it back.

        What goes wrong in it is kept as a violation. The action can be pickled (a `partial`, no lambda).
        """
        return self.clock_of(customer).at(when, partial(_recorded, self, action))

    def after_answer(self, action: Action) -> None:
        """Do something as soon as the answer to this request is on its way."""
        self.soon.append(action)

    def run_soon(self) -> None:
        """What was to be done after the answer; its mistakes are kept as violations."""
        while self.soon:
            action = self.soon.pop(0)
            with self.recording("after an answer"):
                action()

    def run_due(self) -> None:
        """Everything due on the simulator's own clock, and what comes of it at once."""
        self.clock.run_due()
        self.run_soon()

    @contextmanager
    def recording(self, where: str) -> Iterator[None]:
        """Keep what goes wrong inside as a violation instead of raising it."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a background action has nobody to raise it to
            self.violation(where, "".join(traceback.format_exception(error))[-3000:])

    # news

    def emit(self, kind: str, one: Object, *, previous: Object | None = None) -> Object:
        """Write an event about an object as it is now, and send it to the webhooks that want it."""
        event = make_event(self, kind, one, previous=previous)
        if self.dice.random() < self.config.twin_events:
            make_event(self, kind, one, previous=previous)
        return event

    def emit_thin(self, kind: str, *, related: Object | None = None, data: Object | None = None) -> Object:
        """Write an event of the thin form (v2) and send its notification to the destinations that want it."""
        return make_thin_event(self, kind, related=related, data=data)

    @contextmanager
    def changing(self, one: Object, event: str) -> Iterator[Object]:
        """Emit `event` with the previous attributes when the block changed what can be seen of the object."""
        before = render(self.state, one)
        yield one
        after = render(self.state, one)
        if before != after:
            self.emit(event, one, previous=previous_attributes(before, after))

    def tell(self, topic: str, one: Object) -> None:
        """Call those who listen to a topic inside the simulator; no event is made."""
        for listener in LISTENERS.get(topic, ()):
            listener(self, one)

    def check_event(self, event: Object) -> None:
        """Hold an event against the contract; what does not fit is kept as a violation."""
        if problem := event_problem(event):
            self.violation(f"event {event['type']}", problem)

    def violation(self, where: str, problem: str) -> None:
        """Keep something the simulator itself did wrong, for the tests to fail on."""
        self.violations.append({"where": where, "problem": problem, "at": self.clock.now()})


def _recorded(sim: Simulator, action: Action) -> None:
    # a mistake must not keep the clock from reaching its end
    with sim.recording("something due"):
        action()


def previous_attributes(before: Object, after: Object) -> Object:
    """What changed, with its old values; inside objects only what changed there, lists whole."""
    changed: Object = {}
    for name in before.keys() | after.keys():
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            changed[name] = previous_attributes(old, new)
        else:
            changed[name] = copy.deepcopy(old)
    return changed
