"""The soak, in short: each fault on the gateway's side once, and every promise holds."""

import pytest

from devstack.soak.faults import FAULTS
from devstack.soak.run import make_stack, soak
from devstack.soak.schedule import Plan, Progress

# processes that calls do not need; tests of their own kill and stop them, and `make soak` does
BEHIND_THE_GATEWAY = ("control plane", "shipper", "PostgreSQL", "event store")


class TestShortSoak:
    @pytest.mark.slow
    @pytest.mark.timeout(600)
    async def test_loses_and_doubles_nothing_and_serves_nobody_who_may_not(self, tmp_path):
        stack = make_stack(tmp_path)
        faults = [fault for fault in FAULTS if not fault.name.startswith(BEHIND_THE_GATEWAY)]
        plan = Plan(minutes=0, seed=7, faults=faults, gap_seconds=(0.1, 0.4), every_kind=True, longest_seconds=0.8)
        progress = Progress()
        try:
            stack.start()
            result = await soak(stack, plan, progress)
        finally:
            stack.destroy()
        assert {check.name: check.examples for check in result.checks if not check.ok} == {}
        assert progress.not_caused == []
        assert {fault.name for fault in result.faults} == {fault.name for fault in faults}
        assert result.ledger.served > 200
