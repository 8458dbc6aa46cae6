"""Sending events to the webhooks that asked for them, with the disorder that was ordered."""

import asyncio
import contextlib
import hashlib
import hmac
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from devstack.stripe.events import Delivery

SEND_SECONDS = 10.0
AT_ONCE = 20
NO_LIMITS = httpx.Limits(max_connections=None)
FIRST_RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 10.0


@dataclass
class Disorder:
    """What happens to deliveries from now on. Rates are parts of 1, drawn with `seed`."""

    hold: bool = False
    """Keep them until `deliver` is ordered."""
    duplicate: float = 0.0
    drop: float = 0.0
    """Lost for good, the retries too."""
    delay: float = 0.0
    """The part that comes late, by up to `delay_seconds`."""
    delay_seconds: float = 1.0
    types: tuple[str, ...] = ()
    """Only these types of event; empty: all."""
    seed: int = 0

    def concerns(self, delivery: Delivery) -> bool:
        return not self.types or delivery.kind in self.types


def signature(body: bytes, secret: str, at: int) -> str:
    """The `Stripe-Signature` header."""
    signed = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={signed}"


@dataclass
class Courier:
    """Sends what is queued, again and again until a 2xx or until the attempts are used up."""

    most_attempts: int = 16
    disorder: Disorder = field(default_factory=Disorder)
    held: list[Delivery] = field(default_factory=list)
    dropped: list[Delivery] = field(default_factory=list)
    failed: list[Delivery] = field(default_factory=list)
    delivered: Callable[[Delivery], None] = lambda _: None
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _dice: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311 - tests repeat it
    _client: httpx.AsyncClient | None = None
    _room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    def set_disorder(self, disorder: Disorder) -> None:
        self.disorder = disorder
        self._dice = random.Random(disorder.seed)  # noqa: S311 - tests repeat it

    def take(self, delivery: Delivery) -> None:
        """Send it now, or do with it what the disorder says."""
        if not self.disorder.concerns(delivery):
            self.send(delivery)
        elif self.disorder.hold:
            self.held.append(delivery)
        elif self._dice.random() < self.disorder.drop:
            self.dropped.append(delivery)
        else:
            late = self._dice.random() < self.disorder.delay
            self.send(delivery, after=self._dice.random() * self.disorder.delay_seconds if late else 0.0)
            if self._dice.random() < self.disorder.duplicate:
                self.send(replace(delivery))

    def release(self, *, order: str = "made", times: int = 1, types: tuple[str, ...] = ()) -> list[Delivery]:
        """Send what is held: in the order `made`, `reversed` or `shuffled`, each `times` times."""
        chosen = [one for one in self.held if not types or one.kind in types]
        self.held = [one for one in self.held if one not in chosen]
        batch = [replace(one) for one in chosen for _ in range(times)]
        if order == "reversed":
            batch.reverse()
        elif order == "shuffled":
            self._dice.shuffle(batch)
        if batch:
            self._start(self._send_in_turn(batch))
        return batch

    def send(self, delivery: Delivery, *, after: float = 0.0) -> None:
        self._start(self._send_until_taken(delivery, after))

    @property
    def pending(self) -> int:
        """Deliveries on their way, those that wait for their next attempt among them."""
        return len(self._tasks)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def forget(self) -> None:
        """Stop whatever is on its way and drop what is held."""
        for task in list(self._tasks):
            task.cancel()
        self.held, self.dropped, self.failed = [], [], []
        self.set_disorder(Disorder())

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_in_turn(self, batch: list[Delivery]) -> None:
        for one in batch:
            if not await self._send_once(one):
                self.send(one, after=FIRST_RETRY_SECONDS)

    async def _send_until_taken(self, delivery: Delivery, after: float) -> None:
        await asyncio.sleep(after)
        wait = FIRST_RETRY_SECONDS
        while not await self._send_once(delivery):
            if delivery.attempts >= self.most_attempts:
                self.failed.append(delivery)
                return
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_RETRY_SECONDS)

    async def _send_once(self, delivery: Delivery) -> bool:
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=SEND_SECONDS, limits=NO_LIMITS, trust_env=False)
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Stripe/1.0 (simulator)",
            "Stripe-Signature": signature(delivery.body, delivery.secret, int(time.time())),
        }
        delivery.attempts += 1
        delivery.last_status = 0
        async with self._room:
            with contextlib.suppress(httpx.HTTPError):
                answer = await self._client.post(delivery.url, content=delivery.body, headers=headers)
                delivery.last_status = answer.status_code
        taken = 200 <= delivery.last_status < 300  # noqa: PLR2004 - what "2xx" means
        if taken:
            self.delivered(delivery)
        return taken
