"""Stories of customers, from the first click to the last invoice: each of Stripe's says what our preview said."""

from tests.control_plane.stripe_scenarios.world import DAY, STARTER, World


class TestSignUp:
    async def test_a_customer_buys_uses_and_pays_each_month(self, world: World) -> None:
        await world.sell("starter", *STARTER, quota_units=50_000)
        await world.sign_up()
        done = await world.buy("starter")
        assert done["completed"], done
        assert (await world.subscription()).status == "active"
        await world.use(30_000)
        await world.later(3 * DAY)
        await world.use(32_345)
        expected = await world.expected()
        assert expected.invoice.total_minor == 4_900 + 1_852
        await world.pass_period_end()
        first, second = await world.invoices()
        assert (first.status, first.total_minor) == ("paid", 4_900)
        assert (second.status, second.total_minor) == ("paid", 6_752)
