"""Seals and settles the current hour ahead of its time, to see that counters then hold what is billed."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence

from devstack.children import start_child
from devstack.demo.control import ControlClient
from devstack.soak.customers import Customer
from devstack.stack import Stack
from devstack.stack_layout import REPOSITORY
from devstack.supervisor import answers_ok

AHEAD_SECONDS = 3600 + 300  # an hour, and more than the lateness
SETTLE_SECONDS = 90.0


@contextlib.asynccontextmanager
async def an_hour_later(stack: Stack) -> AsyncIterator[None]:
    """Nobody calls and all usage is stored: go on with a control plane whose clock is ahead.

    The shipper is stopped before, since it says "shipped up to" by the true clock.
    """
    await asyncio.to_thread(stack.hold, "shipper")
    await asyncio.to_thread(stack.hold, "server")
    child = start_child(
        [sys.executable, "-m", "devstack.soak.later", str(AHEAD_SECONDS), "serve"],
        env=stack.control_environment(),
        cwd=REPOSITORY,
        log_path=stack.log_path("server"),
    )
    try:
        health = f"{stack.control_url}/healthz"
        await asyncio.to_thread(child.wait_until, lambda: answers_ok(health), timeout_seconds=60.0)
        yield
    finally:
        await asyncio.to_thread(child.stop)


async def wait_until_settled(control: ControlClient, customers: Sequence[Customer]) -> bool:
    """Wait until all hours with usage are sealed and worked off; False after a minute and a half.

    Nobody ships any more, so all shippers are retired; again at each look, since what one had still left in the
    stream makes it live again when the collector comes to it.
    """
    deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS
    while asyncio.get_running_loop().time() < deadline:
        for shipper in (await control.get("/shippers"))["items"]:
            await control.post(f"/shippers/{shipper['shipper_id']}/retire")
        answers = [await control.get(f"/accounts/{customer.account_id}/usage") for customer in customers]
        if sum(answer["open_hours"] for answer in answers) == 0:
            # the outbox is worked off within a round of the settling loop
            await asyncio.sleep(2)
            return True
        await asyncio.sleep(0.5)
    return False
