"""What a call meets before and after it is carried out: limits, idempotency keys, faults."""

import asyncio
import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from devstack.stripe.contract.checking import Contract
from devstack.stripe.faults import Fault, Faults
from devstack.stripe.idempotency import IdempotencyKeys
from devstack.stripe.limits import Limits, lock_timeout, rate_limited
from devstack.stripe.problems import StripeProblem
from devstack.stripe.requests import Answer, Request, raw_params, to_json, work
from devstack.stripe.simulator import Simulator

REQUESTS_KEPT = 20_000
SLOW_SECONDS = 1.0
METER_EVENTS = ("/v1/billing/meter_events", "/v2/billing/meter_events")


class NoAnswer(Exception):  # noqa: N818 - it is no failure of ours: the caller is to see one
    """The caller gets nothing: the connection stays silent, or is broken off."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__("reset" if reset else "silence")
        self.reset = reset


@dataclass
class Seen:
    """One call of the API, for tests to look at."""

    method: str
    path: str
    params: Any
    idempotency_key: str | None
    request_id: str
    at: int
    status: int = 0
    """0: no answer was given."""
    fault: str = ""
    replayed: bool = False


class Front:
    """The one way in to the simulated account."""

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim
        self.contract = Contract()
        self.begin()

    def begin(self) -> None:
        """As after a reset."""
        self.faults = Faults()
        self.keys = IdempotencyKeys()
        self.limits = Limits()
        self.seen: deque[Seen] = deque(maxlen=REQUESTS_KEPT)

    async def answer(self, request: Request) -> Answer:
        """Raises NoAnswer when a fault says so."""
        self.sim.run_due()
        request_id = self.sim.state.new_id("req")
        seen = Seen(
            method=request.method,
            path=request.path,
            params=_shown_params(request),
            idempotency_key=request.headers.get("idempotency-key"),
            request_id=request_id,
            at=self.sim.now(),
        )
        self.seen.append(seen)
        fault = self.faults.draw(request.method, request.path)
        seen.fault = fault.kind if fault else ""
        try:
            answer = await self._meet(request, request_id, fault)
        except StripeProblem as problem:
            answer = Answer(problem.status, to_json(problem.body()), {"Request-Id": request_id, **problem.headers})
        seen.status = answer.status
        seen.replayed = "Idempotent-Replayed" in answer.headers
        return answer

    async def _meet(self, request: Request, request_id: str, fault: Fault | None) -> Answer:
        await self._before(fault)
        self.limits.take(self.sim.config.requests_per_second)
        with self._lane(request):
            if kept := self.keys.replay(request, now=self.sim.now()):
                return kept
            try:
                await self._take_time(request, fault)
                answer = work(self.sim, self.contract, request, request_id)
                if fault is not None and fault.kind == "error_after":
                    answer = _server_error(request_id, began=True)
            except BaseException:
                self.keys.forget(request)
                raise
            self.keys.keep(request, answer)
        if fault is not None and fault.kind in {"timeout_after", "reset_after"}:
            raise NoAnswer(reset=fault.kind == "reset_after")
        return answer

    async def _before(self, fault: Fault | None) -> None:
        match fault.kind if fault else "":
            case "timeout_before":
                raise NoAnswer(reset=False)
            case "reset_before":
                raise NoAnswer(reset=True)
            case "error_before":
                raise StripeProblem("Something went wrong on Stripe's end.", status=500, kind="api_error")
            case "rate_limited":
                raise rate_limited("global-rate")
            case "lock_timeout":
                raise lock_timeout("resource-specific")

    async def _take_time(self, request: Request, fault: Fault | None) -> None:
        seconds = self.sim.config.meter_event_seconds if request.path in METER_EVENTS else 0.0
        if fault is not None and fault.kind == "slow":
            seconds += SLOW_SECONDS if fault.seconds is None else fault.seconds
        if seconds > 0:
            await asyncio.sleep(seconds)

    @contextmanager
    def _lane(self, request: Request) -> Iterator[None]:
        lane = _meter_lane(request)
        if lane is None:
            yield
            return
        self.limits.enter(lane)
        try:
            yield
        finally:
            self.limits.leave(lane)


def _meter_lane(request: Request) -> str | None:
    if request.method != "POST" or request.path not in METER_EVENTS:
        return None
    try:
        given = raw_params(request)
        payload = given.get("payload")
        customer = payload.get("stripe_customer_id") if isinstance(payload, dict) else None
        return f"{customer} {given.get('event_name')}"
    except (StripeProblem, AttributeError):
        return None


def _server_error(request_id: str, *, began: bool) -> Answer:
    problem = StripeProblem("Something went wrong on Stripe's end.", status=500, kind="api_error")
    return Answer(500, to_json(problem.body()), {"Request-Id": request_id}, began)


def _shown_params(request: Request) -> Any:
    try:
        return json.loads(json.dumps(raw_params(request)))
    except (StripeProblem, ValueError, UnicodeDecodeError):
        return {}
