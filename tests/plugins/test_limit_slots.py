"""Redis Cluster runs a script only where all its names are in one slot."""

from binascii import crc_hqx

import pytest

from gateway_contract.modes import Mode
from gateway_contract.records import Concurrency, MeterPrice, PriceStep, Quota, SpendCap, Window

PRICED = SpendCap(
    9,
    "usd",
    usage_minor=9,
    prices=(MeterPrice("tokens", (PriceStep(0, 0, 1),)),),
    reserves={"forecast": {"tokens": 1}},
)


def slot_of(name: str) -> int:
    """As Redis Cluster's specification says it."""
    start = name.find("{")
    end = name.find("}", start + 1)
    tag = name[start + 1 : end] if start != -1 and end > start + 1 else name
    return crc_hqx(tag.encode(), 0) % 16384


class TestKeysOfTheScript:
    @pytest.mark.parametrize("mode", list(Mode))
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"windows": (Window(100, 1000), Window(101, 60_000)), "key_windows": (Window(5, 500),)},
            {"quota": Quota(5, hard=True), "quota_units": 3},
            {"quota": Quota(5, hard=False, cap_units=9)},
            {"spend_cap": SpendCap(9, "usd", ceiling_units=4)},
            {"spend_cap": PRICED, "route_name": "forecast"},
            {"concurrency": Concurrency(2, 1000)},
            {"dry_run": True, "concurrency": Concurrency(2, 1000), "quota_units": 3},
        ],
    )
    def test_are_in_one_slot(self, timed, mode, changes):
        caller = timed(mode=mode, **changes)
        assert {slot_of(name) for name in caller.question.keys} == {slot_of(caller.account)}

    def test_are_all_that_it_touches(self, timed):
        caller = timed(spend_cap=PRICED, route_name="forecast", concurrency=Concurrency(2, 1000), quota_units=9)
        caller.ask(0)
        assert {name.decode() for name in caller.stored()} <= set(caller.question.keys)

    def test_of_an_account_have_a_slot_of_their_own(self):
        assert slot_of("km:1:{acc_1}:versions") == slot_of("acc_1") != slot_of("acc_2")
