"""What credits pay for is bounded call by call: nothing may be sold, or taken away, that leaves a bound out."""

from dataclasses import replace

import pytest

from control_plane.billing.call_bounds import MaximumMissingError
from control_plane.billing.operations import require_cap_kept, require_caps_kept
from control_plane.catalog.model import PriceTerms, ProductFacts
from control_plane.catalog.operations import create_api_product, update_api_product
from control_plane.foundation.errors import ValidationFailedError
from control_plane.subscriptions.add_ons import add_on
from tests.control_plane.builders import ACTOR, a_new_version, a_published_plan, a_subscription, an_account

PRODUCT = ProductFacts(
    code="weather",
    name="Weather",
    service="weather",
    routes=("chat",),
    unit_headers={"tokens": "x-tokens", "images": "x-images"},
    unit_maximums={"*": {"tokens": 8000}},
)


def per_unit(meter):
    return PriceTerms(model="per_unit", meter=meter, params={"unit_amount": "0.01"})


async def changed(session, *, now, **facts):
    await update_api_product(session, product=replace(PRODUCT, **facts), actor=ACTOR, now=now)
    await require_caps_kept(session, product_code="weather", now=now)


@pytest.fixture
async def product(session, now):
    return await create_api_product(session, product=PRODUCT, actor=ACTOR, now=now)


@pytest.fixture
async def payg(session, product, now):
    return await a_published_plan(
        session, now=now, code="payg", payment="prepaid", prices=(per_unit("tokens"), per_unit("requests"))
    )


class TestPrepaidPlan:
    @pytest.mark.parametrize("meter", ["images", "upstream_ms"])
    async def test_is_not_published_with_a_price_on_what_gateways_cannot_bound(self, session, product, now, meter):
        await a_published_plan(session, now=now, code="later")
        wanted = {"payment": "prepaid", "prices": (per_unit("requests"), per_unit(meter))}
        with pytest.raises(ValidationFailedError) as refused:
            await a_new_version(session, code="later", now=now, **wanted)
        assert refused.value.field == "prices[1].meter"
        assert f"prepaid credits cannot pay for {meter}" in refused.value.message

    async def test_is_not_left_without_a_maximum_by_its_product(self, session, payg, now):
        await changed(session, now=now, unit_maximums={"*": {"tokens": 9000}})
        with pytest.raises(MaximumMissingError, match=r"credits cannot pay for plan payg.* tokens.* route chat"):
            await changed(session, now=now, unit_maximums={})

    async def test_that_is_not_sold_any_more_counts_as_long_as_it_is_used(self, session, payg, now):
        await a_subscription(session, await an_account(session, now=now), plan="payg", now=now)
        await a_new_version(session, code="payg", now=now, payment="prepaid", prices=(per_unit("requests"),))
        with pytest.raises(MaximumMissingError):
            await changed(session, now=now, routes=("chat", "other"), unit_maximums={"chat": {"tokens": 1}})

    async def test_does_not_keep_its_product_from_leaving_out_what_it_does_not_charge_for(
        self, session, payg, now
    ):
        await changed(session, now=now, unit_headers={"tokens": "x-tokens"})

    async def test_takes_no_add_on_that_charges_for_what_gateways_cannot_bound(self, session, payg, now):
        await a_published_plan(session, now=now, code="starter", position=1)
        await a_published_plan(session, now=now, code="pictures", kind="add_on", prices=(per_unit("images"),))
        paid_ahead, invoiced = [
            await a_subscription(session, await an_account(session, now=now), plan=plan, now=now)
            for plan in ("payg", "starter")
        ]
        for subscription in (paid_ahead, invoiced):
            await add_on(session, subscription_id=subscription.id, add_on_code="pictures", actor=ACTOR, now=now)
        await require_cap_kept(session, invoiced, now=now)
        with pytest.raises(MaximumMissingError, match=r"credits cannot pay for plan pictures: .* images"):
            await require_cap_kept(session, paid_ahead, now=now)
