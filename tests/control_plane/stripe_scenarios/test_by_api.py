"""The driver that tells stories on Stripe itself, here against the simulator, by the official API alone."""

import re

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from control_plane.stripe_sync.client import StripeConfig
from devstack.stripe.embedded import EmbeddedStripe
from tests.control_plane.stripe_scenarios.access import Access, WrongAccessError, access_of
from tests.control_plane.stripe_scenarios.real import Real
from tests.control_plane.stripe_scenarios.world import HOUR, STARTER
from tests.control_plane.stripe_scenarios.world_by_api import world_by_api

TEST_KEY = "sk_test_1234567890"


class TestAccess:
    @pytest.mark.parametrize("key", ["sk_live_1234567890", "rk_live_1234567890", " sk_live_1234567890"])
    def test_live_keys_are_refused_and_not_repeated(self, key: str) -> None:
        with pytest.raises(WrongAccessError, match="is a live key: it moves real money") as refused:
            access_of({"KM_TEST_STRIPE_KEY": key})
        assert key.strip() not in str(refused.value)

    @pytest.mark.parametrize(
        "given",
        [
            {"KM_TEST_STRIPE_KEY": "pk_test_1234567890"},
            {"KM_TEST_STRIPE_KEY": TEST_KEY, "KM_TEST_STRIPE_BASE": "https://elsewhere.example"},
            {"KM_TEST_STRIPE_BASE": "http://127.0.0.1:12111"},
            {"KM_TEST_STRIPE_KEY": TEST_KEY, "KM_TEST_STRIPE_MINUTES": "long"},
        ],
    )
    def test_what_makes_no_sense_is_refused(self, given: dict[str, str]) -> None:
        with pytest.raises(WrongAccessError):
            access_of(given)

    def test_without_a_key_it_is_the_simulator_with_one_it_is_stripe(self) -> None:
        assert access_of({}) is None
        access = access_of({"KM_TEST_STRIPE_KEY": "rk_test_1234567890", "KM_TEST_STRIPE_MINUTES": "45"})
        assert access is not None
        assert (access.is_stripe, access.minutes) == (True, 45.0)
        assert "rk_test" not in repr(access)

    def test_nobody_lives_in_a_test_clocks_time_with_a_live_key(self) -> None:
        with pytest.raises(ValueError, match="test keys only"):
            StripeConfig(api_key="rk_live_1234567890", test_clock="clock_1")


class TestByTheApiAlone:
    async def test_a_customer_buys_uses_and_pays(
        self, stripe_server: EmbeddedStripe, engine: AsyncEngine, capsys: pytest.CaptureFixture[str]
    ) -> None:
        control = stripe_server.control
        control.reset()
        access = Access(key=stripe_server.api_key, base=stripe_server.url)
        async with world_by_api(access, engine) as world:
            await world.sell("starter", *STARTER, quota_units=50_000)
            await world.sign_up()
            assert not await world.buy("starter", card="pm_card_chargeCustomerFail")
            assert await world.buy("starter")
            await world.use(60_000)
            expected = await world.expected()
            await world.go((await world.row()).current_period_end + 2 * HOUR)
            assert [(one.status, one.total_minor) for one in await world.invoices()] == [
                ("paid", 4_900),
                ("paid", 4_900 + 1_500),
            ]
            assert expected.invoice.total_minor == 4_900 + 1_500
            assert isinstance(world.side, Real)
            assert re.fullmatch(r"test clock clock_\w+, installation t[0-9a-f]{8}, .*", world.side.told())
            # a story has so many minutes
            world.side.deadline = 0.0
            with pytest.raises(AssertionError, match="KM_TEST_STRIPE_MINUTES allows more"):
                await world.later(HOUR)
        # what Stripe billed can be read where a story failed
        said = capsys.readouterr().out
        assert ": paid, 6400 usd" in said
        assert "left at Stripe" not in said
        # nothing is left but what is archived
        assert control.dump("test_helpers.test_clock").get("test_helpers.test_clock", []) == []
        assert [one for one in control.dump("product")["product"] if one["active"]] == []
        assert {one["status"] for one in control.dump("billing.meter")["billing.meter"]} == {"inactive"}
        assert control.violations() == []
