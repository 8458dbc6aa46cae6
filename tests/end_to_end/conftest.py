"""One whole stack for the read-only scenarios; tests that kill or empty things take one of their own."""

from pathlib import Path

import pytest

from devstack.demo.control import ControlClient
from devstack.stack import temporary_stack

PLANS = Path(__file__).parents[2] / "plans.yml"


@pytest.fixture
def stack():
    """A stack for one test, which may kill and empty things in it."""
    with temporary_stack(fast=True) as running:
        yield running


@pytest.fixture(scope="session")
def shared_stack():
    """One stack for all tests that leave it as sound as they found it; their customers are their own."""
    with temporary_stack(fast=True) as running:
        yield running


@pytest.fixture
async def control(stack):
    async with ControlClient(stack.control_url, stack.admin_token) as client:
        await client.post("/plans/apply", yaml=PLANS.read_text())
        await client.post("/gateway/push")
        yield client
