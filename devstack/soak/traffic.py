"""Callers: each numbers its requests by their paths and enters what it saw in the ledger."""

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Self, cast

import aiohttp
from redis.exceptions import RedisError

from control_plane.foundation.redis import create_redis
from devstack.demo.control import ControlClient, ControlError
from devstack.soak.asks import Ask
from devstack.soak.customers import Customer, Role, issue_key
from devstack.soak.ledger import AGAIN, GATEWAY_ERROR, SERVED, Call, KeyLife, Ledger
from gateway_contract import headers, redis_names
from gateway_contract.api_keys import generate_api_key
from gateway_contract.modes import Mode
from gateway_contract.receipts import Place, verify_receipt

ANSWER_SECONDS = 20.0
CALLERS_PAUSE_SECONDS = 0.2
STRANGERS = "strangers"
STRANGERS_PER_SECOND, STRANGERS_AT_ONCE = 8.0, 3
MOST_KEYS = 12
LONGEST_KEY_LIFE_SECONDS = 12.0
CHANGE_KEYS_EVERY_SECONDS = (1.0, 3.0)
LOOK_EVERY_SECONDS = 0.02


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Traffic:
    """Sends until `stopping` is set. Use as an async context manager."""

    def __init__(self, *, proxy_url: str, secrets: tuple[bytes, ...], ledger: Ledger, seed: int) -> None:
        self.ledger = ledger
        self.stopping = asyncio.Event()
        self._proxy_url = proxy_url
        self._secrets = secrets
        self._random = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0))
        # aiohttp would send a GET again over a new connection: one path, two calls
        self._session._retry_connection = False  # noqa: SLF001 - there is no public way
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def run(self, customers: list[Customer]) -> None:
        """Let all customers and the strangers call until `stopping`."""
        async with asyncio.TaskGroup() as group:
            for customer in customers:
                self._start_callers(group, customer.role, partial(self._ask_of, customer))
            stranger = Role(STRANGERS, "", (), per_second=STRANGERS_PER_SECOND, concurrency=STRANGERS_AT_ONCE)
            self._start_callers(group, stranger, partial(self._strange_ask, customers))

    def _start_callers(self, group: asyncio.TaskGroup, role: Role, next_ask: Callable[[], Ask]) -> None:
        numbers = itertools.count()
        for _ in range(role.concurrency):
            group.create_task(self._call_again_and_again(role, numbers, next_ask))

    async def _call_again_and_again(self, role: Role, numbers: Iterator[int], next_ask: Callable[[], Ask]) -> None:
        pause = role.concurrency / role.per_second
        while not self.stopping.is_set():
            name, ask = f"{role.name}-{next(numbers)}", next_ask()
            await self._send(role, name, ask)
            for again in range(self._random.choice(role.repetitions)):
                # its own name in the ledger, the same path for everybody else
                await self._send(role, f"{name}{AGAIN}{again + 1}", replace(ask, replayed=True))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), self._random.uniform(0.4, 1.6) * pause)

    def _ask_of(self, customer: Customer) -> Ask:
        key = self._random.choice(customer.keys)
        return Ask(key, key.text, self._random.choice(customer.role.answers))

    def _strange_ask(self, customers: list[Customer]) -> Ask:
        """No key, a key nobody was given, or a good one mistyped in its last character."""
        kind = self._random.randrange(3)
        if kind == 0:
            return Ask(None, "")
        text = generate_api_key(Mode.LIVE)
        if kind == 1:
            good = self._random.choice(self._random.choice(customers).keys).text
            text = good[:-1] + ("x" if good[-1] != "x" else "y")
        self.ledger.strange_keys.add(text)
        return Ask(None, text)

    async def _send(self, role: Role, name: str, ask: Ask) -> None:
        if self._session is None:
            raise RuntimeError("use Traffic as an async context manager")
        wanted = ask.answer
        call = Call(
            path=f"/{role.route}/v1/answers/{name}",
            caller=role.name,
            account_id=ask.key.account_id if ask.key else "",
            key_id=ask.key.key_id if ask.key else "",
            door=role.door,
            begun_ms=now_ms(),
            tokens=wanted.tokens,
            replayed=ask.replayed,
        )
        self.ledger.begin(call)
        query = {"status": str(wanted.status), "ms": str(wanted.wait_ms)}
        if wanted.tokens:
            query["tokens"] = str(wanted.tokens)
        if ask.replayed:
            query["replayed"] = "true"
        path, _, again = call.path.partition(AGAIN)
        sent = ({"apikey": ask.presented} if ask.presented else {}) | ({"x-again": again} if again else {})
        try:
            async with (
                asyncio.timeout(wanted.hang_up_seconds or None),
                self._session.get(self._proxy_url + path, params=query, headers=sent) as answer,
            ):
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError):
            # nobody knows whether it was served
            await asyncio.sleep(0 if wanted.hang_up_seconds else CALLERS_PAUSE_SECONDS)
        else:
            text = answer.headers.get(headers.RECEIPT, "")
            call.receipt = verify_receipt(text, place=Place.ANSWER, secrets=self._secrets)
            call.code = SERVED if call.receipt else GATEWAY_ERROR
            if answer.content_type == "application/problem+json":
                call.code = json.loads(body)["code"]
            call.status = answer.status
        call.answered_ms = now_ms()
        self.ledger.end(call)


class KeyChanger:
    """Issues, revokes and lets expire the keys of one customer while calls go on."""

    def __init__(
        self, *, control: ControlClient, redis_url: str, customer: Customer, ledger: Ledger, seed: int
    ) -> None:
        self._control = control
        self._redis = create_redis(redis_url, timeout_seconds=1.0)
        self._customer = customer
        self._ledger = ledger
        self._random = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret

    async def run(self, stopping: asyncio.Event) -> None:
        """Change one key after the other until `stopping`. Whatever fails is tried again."""
        try:
            while not stopping.is_set():
                change = self._random.choice((self._issue, self._issue_for_a_moment, self._revoke, self._revoke))
                with contextlib.suppress(ControlError, aiohttp.ClientError, TimeoutError):
                    await change(stopping)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), self._random.uniform(*CHANGE_KEYS_EVERY_SECONDS))
        finally:
            await self._redis.aclose()

    async def _issue(self, _stopping: asyncio.Event) -> None:
        self._use(await issue_key(self._control, self._customer))

    async def _issue_for_a_moment(self, _stopping: asyncio.Event) -> None:
        expires_ms = now_ms() + round(1000 * self._random.uniform(2, LONGEST_KEY_LIFE_SECONDS))
        moment = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(expires_ms // 1000))}.{expires_ms % 1000:03d}Z"
        life = await issue_key(self._control, self._customer, expires_at=moment)
        life.expires_ms = expires_ms
        self._use(life)

    def _use(self, life: KeyLife) -> None:
        """Callers use it from now on; the longest ended of too many keys is left alone."""
        self._ledger.keys[life.key_id] = life
        self._customer.keys.append(life)
        ended = [key for key in self._customer.keys if key.projected_ms or key.expires_ms]
        if len(self._customer.keys) > MOST_KEYS and ended:
            self._customer.keys.remove(ended[0])

    async def _revoke(self, stopping: asyncio.Event) -> None:
        """Revoke one key, but never the only good one; note when the API said so and when Redis knew it."""
        good = [key for key in self._customer.keys if not key.revoked_ms and not key.expires_ms]
        if len(good) < 2:  # noqa: PLR2004 - one must remain
            return
        life = self._random.choice(good)
        before = await self._version(life)
        await self._control.post(f"/keys/{life.key_id}/revoke")
        life.revoked_ms = now_ms()
        while not stopping.is_set() and before is not None:
            version = await self._version(life)
            if version is not None and version > before:
                life.projected_ms = now_ms()
                return
            await asyncio.sleep(LOOK_EVERY_SECONDS)

    async def _version(self, life: KeyLife) -> int | None:
        """Return the version of the key that the gateway compares with; None where Redis does not say."""
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            name = redis_names.account_versions(life.account_id)
            text = await cast("Awaitable[str | None]", self._redis.hget(name, life.key_id))
            return None if text is None else int(text)
        return None
