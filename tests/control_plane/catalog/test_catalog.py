"""Products, plans and versions: what was published never changes again."""

import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError

from control_plane.catalog import queries
from control_plane.catalog.model import PlanFacts, PriceTerms, ProductFacts
from control_plane.catalog.operations import (
    CodeTakenError,
    RouteTakenError,
    create_api_product,
    create_plan,
    update_api_product,
    update_plan,
)
from control_plane.catalog.tables import Plan, PlanVersion, Price
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from control_plane.foundation.ids import new_id
from gateway_contract.records import Window
from tests.control_plane.builders import (
    ACTOR,
    FLAT_49,
    a_new_version,
    a_published_plan,
    an_api_product,
    audit_of,
    outbox_of,
)


def weather(**changes) -> ProductFacts:
    return ProductFacts(
        **{"code": "weather", "name": "Weather", "service": "weather", "routes": ("weather",), **changes}
    )


def starter(**changes) -> PlanFacts:
    return PlanFacts(**{"code": "starter", "name": "Starter", "api_product": "weather", "position": 0, **changes})


class TestPublishedVersion:
    async def test_is_final_in_the_database_itself(self, session, now):
        version = await a_published_plan(session, now=now, windows=(Window(5, 1_000),))
        version_id = version.id
        of_version = PlanVersion.id == version_id
        changes = [
            update(PlanVersion).where(of_version).values(quota_units=1),
            update(PlanVersion).where(of_version).values(windows=[]),
            update(PlanVersion).where(of_version).values(currency="EUR"),
            update(PlanVersion).where(of_version).values(status="draft", published_at=None),
            delete(PlanVersion).where(of_version),
            update(Price).values(params={"amount": "1.00"}),
            delete(Price),
        ]
        for status in ("published", "superseded"):
            await session.execute(update(PlanVersion).values(status=status))
            await session.commit()
            for change in changes:
                with pytest.raises(IntegrityError, match="was published"):
                    await session.execute(change.execution_options(synchronize_session=False))
                await session.rollback()
            again = (await queries.plan_versions(session, [version_id]))[version_id]
            assert (again.status, again.currency, [price.params for price in again.prices]) == (
                status,
                "USD",
                [{"amount": "49.00"}],
            )

    async def test_gets_no_more_prices(self, session, now):
        version = await a_published_plan(session, now=now)
        price = Price(
            id=new_id("price"), plan_version_id=version.id, position=9, model="flat", params={"amount": "1"}
        )
        session.add(price)
        with pytest.raises(IntegrityError, match="its prices are final"):
            await session.flush()

    async def test_is_the_only_one_on_sale(self, session, now):
        first = await a_published_plan(session, now=now)
        second = await a_new_version(session, now=now, quota_units=5)
        assert (first.status, second.status, second.version) == ("superseded", "published", 2)
        with pytest.raises(IntegrityError, match="uq_plan_versions_published"):
            await session.execute(
                update(PlanVersion).where(PlanVersion.id == (await a_draft(session, second, now)).id)
                .values(status="published", published_at=now)
            )  # fmt: skip

    async def test_equal_terms_make_no_new_version(self, session, now):
        first = await a_published_plan(session, now=now)
        same = PriceTerms(model="flat", meter=None, params={"amount": 49})
        assert (await a_new_version(session, now=now, prices=(same,))).id == first.id
        assert await session.scalar(select(func.count()).select_from(PlanVersion)) == 1

    async def test_is_refused_by_field_and_leaves_the_old_one_on_sale(self, session, now):
        first = await a_published_plan(session, now=now)
        for field, terms in (
            ("interval", {"interval": "week"}),
            ("currency", {"currency": "XXX"}),
            ("quota_units", {"quota_units": 0}),
            ("quota_hard", {"quota_hard": True}),
            ("windows[0].limit", {"windows": (Window(0, 1_000),)}),
            ("redis_down", {"redis_down": "ajar"}),
            ("billable_below", {"billable_below": 100}),
            ("entitlements[0]", {"entitlements": ("A B",)}),
            ("prices[0].params.amount", {"prices": (PriceTerms(model="flat", meter=None, params={}),)}),
            (
                "prices[0].meter",
                {"prices": (PriceTerms(model="per_unit", meter="x", params={"unit_amount": "1"}),)},
            ),
            ("prices", {"prices": (FLAT_49,) * 21}),
        ):
            with pytest.raises(ValidationFailedError) as refused:
                await a_new_version(session, now=now, **terms)
            assert refused.value.field == field
        on_sale = await queries.published_versions(session, [first.plan_id])
        assert on_sale[first.plan_id].id == first.id

    async def test_is_written_down_with_what_it_replaces(self, session, now):
        first = await a_published_plan(session, now=now)
        second = await a_new_version(session, now=now, quota_units=5)
        (row,) = await audit_of(session, second.id)
        assert (row.before["plan_version_id"], row.before["quota_units"], row.after["quota_units"]) == (
            first.id,
            None,
            5,
        )
        assert len(await outbox_of(session, "product.changed")) == 3  # the plan, and each version


async def a_draft(session, like, now) -> PlanVersion:
    draft = PlanVersion(
        id=new_id("pv"), plan_id=like.plan_id, version=99, interval="month", currency="USD", created_at=now
    )
    session.add(draft)
    await session.flush()
    return draft


class TestApiProduct:
    async def test_a_code_is_taken_for_good(self, session, now):
        product = await an_api_product(session, now=now)
        product.archived_at = now
        with pytest.raises(CodeTakenError):
            await create_api_product(session, product=weather(routes=("other",)), actor=ACTOR, now=now)

    async def test_a_route_belongs_to_one_product(self, session, now):
        await an_api_product(session, now=now)
        await an_api_product(session, now=now, code="maps")
        with pytest.raises(RouteTakenError, match="Route maps belongs to API product maps"):
            await update_api_product(session, product=weather(routes=("weather", "maps")), actor=ACTOR, now=now)

    async def test_only_what_kong_shows_is_told_to_the_renderer(self, session, now):
        product = await an_api_product(session, now=now)
        for facts in (weather(description="d"), weather(description="d", route_units={"weather": 2})):
            await update_api_product(session, product=facts, actor=ACTOR, now=now)
        assert await outbox_of(session, "config.changed") == [product.id]  # from its creation
        assert await outbox_of(session, "product.changed") == [product.id]  # units of routes are in records
        await update_api_product(session, product=weather(unit_headers={"tokens": "x-t"}), actor=ACTOR, now=now)
        assert await outbox_of(session, "config.changed") == [product.id, product.id]

    async def test_the_same_again_changes_nothing(self, session, now):
        product = await an_api_product(session, now=now)
        await update_api_product(session, product=queries.facts_of_product(product), actor=ACTOR, now=now)
        assert len(await audit_of(session, product.id)) == 1


class TestPlan:
    async def test_one_plan_of_a_product_is_recommended(self, session, now):
        await a_published_plan(session, now=now, code="starter", recommended=True)
        await a_published_plan(session, now=now, code="growth", position=1, recommended=True)
        recommended = await session.scalars(select(Plan.code).where(Plan.recommended))
        assert recommended.all() == ["growth"]
        starter_row = await queries.plan(session, "starter")
        assert (await audit_of(session, starter_row.id))[-1].after["recommended"] is False

    async def test_stays_with_its_product(self, session, now):
        await a_published_plan(session, now=now)
        await an_api_product(session, now=now, code="maps")
        with pytest.raises(ValidationFailedError) as refused:
            await update_plan(session, plan=starter(api_product="maps"), actor=ACTOR, now=now)
        assert refused.value.field == "api_product"

    @pytest.mark.parametrize(
        ("field", "changes"),
        [("code", {"code": "Start er"}), ("name", {"name": ""}), ("visibility", {"visibility": "secret"})],
    )
    async def test_is_refused_by_field(self, session, now, field, changes):
        await an_api_product(session, now=now)
        with pytest.raises(ValidationFailedError) as refused:
            await create_plan(session, plan=starter(**changes), actor=ACTOR, now=now)
        assert refused.value.field == field

    async def test_needs_a_product(self, session, now):
        with pytest.raises(NotFoundError):
            await create_plan(session, plan=starter(), actor=ACTOR, now=now)

    async def test_hidden_plans_are_not_on_the_public_list(self, session, now):
        await a_published_plan(session, now=now, code="starter")
        await a_published_plan(session, now=now, code="deal", position=1, visibility="hidden")
        assert [plan.code for plan in await queries.plans(session)] == ["starter", "deal"]
        assert [plan.code for plan in await queries.plans(session, public_only=True)] == ["starter"]
