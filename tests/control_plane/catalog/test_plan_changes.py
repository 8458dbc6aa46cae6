"""Plans as code against the catalogue: diff says what apply does, apply does it once and whole."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import func, select

import control_plane
from control_plane.catalog import queries
from control_plane.catalog.operations import RouteTakenError, archive_plan
from control_plane.catalog.plan_changes import apply_plan_file, diff_plan_file
from control_plane.catalog.plan_export import read_catalog
from control_plane.catalog.plan_file import parse_plan_file
from control_plane.catalog.tables import ApiProduct, Plan, PlanVersion
from control_plane.foundation.audit import AuditRow
from control_plane.foundation.outbox import OutboxRow
from control_plane.subscriptions.plan_removal import archive_api_product
from tests.control_plane.builders import ACTOR, a_subscription, an_account, an_api_product, outbox_of

DEFAULT = (Path(control_plane.__file__).parent.parent / "plans.yml").read_text()


async def apply(session, text, now):
    return await apply_plan_file(session, parse_plan_file(text), actor=ACTOR, now=now)


async def rows_written(session) -> tuple[int, ...]:
    tables = (ApiProduct, Plan, PlanVersion, AuditRow, OutboxRow)
    return tuple([await session.scalar(select(func.count()).select_from(table)) or 0 for table in tables])


class TestApplyPlanFile:
    async def test_makes_the_catalogue_and_a_second_time_changes_nothing(self, session, now):
        first = await apply(session, DEFAULT, now)
        assert [str(change) for change in first.changes][:3] == [
            "api_product weather: create",
            "plan enterprise: create",
            "plan enterprise: new_version",
        ]
        codes = [plan.code for plan in await queries.plans(session)]
        assert codes == ["enterprise", "growth", "starter", "free", "team"]
        written = await rows_written(session)
        second = await apply(session, DEFAULT, now)
        assert second.changes == second.left_alone == ()
        assert await rows_written(session) == written

    async def test_what_is_read_back_is_what_the_file_says(self, session, now):
        await apply(session, DEFAULT, now)
        session.expire_all()
        file = parse_plan_file(DEFAULT)
        plans = await queries.plans(session)
        versions = await queries.published_versions(session, [plan.id for plan in plans])
        there = {
            plan.code: (queries.facts_of_plan(plan), queries.terms_of_version(versions[plan.id])) for plan in plans
        }
        assert there == {offer.facts.code: (offer.facts, offer.terms) for offer in file.plans}
        assert queries.facts_of_product(await queries.api_product(session, "weather")) == file.products[0]

    async def test_changed_terms_make_a_new_version_and_subscriptions_keep_theirs(self, session, now):
        await apply(session, DEFAULT, now)
        subscription = await a_subscription(session, await an_account(session, now=now), now=now)
        pinned = subscription.phases[0].plan_version_id
        diff = await apply(
            session, DEFAULT.replace('"0.0015"', '"0.0012"').replace("limit: 300", "limit: 400"), now
        )
        (change,) = diff.changes
        assert str(change) == (
            "plan starter: new_version "
            "(windows[1].limit: 300 -> 400, prices[1].params.unit_amount: '0.0015' -> '0.0012')"
        )
        plan = await queries.plan(session, "starter")
        new, old = await queries.versions_of_plan(session, plan.id)
        assert [(old.version, old.status), (new.version, new.status)] == [(1, "superseded"), (2, "published")]
        await session.refresh(subscription, ["phases"])
        assert [phase.plan_version_id for phase in subscription.phases] == [pinned] == [old.id]

    async def test_what_a_plan_shows_changes_without_a_new_version(self, session, now):
        await apply(session, DEFAULT, now)
        moved = DEFAULT.replace("    recommended: true\n", "").replace(
            "code: starter\n    name: Starter\n", "code: starter\n    name: Basic\n    recommended: true\n"
        )
        diff = await apply(session, moved, now)
        assert [str(change) for change in diff.changes] == [
            "plan growth: update (recommended: True -> False)",
            "plan starter: update (name: 'Starter' -> 'Basic', recommended: False -> True)",
        ]
        assert await session.scalar(select(func.count()).select_from(PlanVersion)) == 5
        assert (await apply(session, DEFAULT, now)).changes[1].code == "starter"
        assert (await apply(session, DEFAULT, now)).changes == ()

    async def test_what_the_file_leaves_out_is_named_and_left_alone(self, session, now):
        await apply(session, DEFAULT, now)
        await an_api_product(session, now=now, code="maps")
        diff = await apply(session, DEFAULT[: DEFAULT.index("  - code: free")], now)
        assert diff.changes == ()
        assert diff.left_alone == ("api_product maps", "plan free")
        assert (await queries.plan(session, "free")).archived_at is None

    async def test_brings_an_archived_plan_back(self, session, now):
        await apply(session, DEFAULT, now)
        await archive_plan(session, code="free", actor=ACTOR, now=now)
        diff = await apply(session, DEFAULT, now)
        assert [str(change) for change in diff.changes] == ["plan free: update (archived: True -> False)"]
        assert (await queries.plan(session, "free")).archived_at is None

    async def test_brings_an_archived_api_product_back_with_its_plans(self, session, now):
        await apply(session, DEFAULT, now)
        await archive_api_product(session, code="weather", actor=ACTOR, now=now)
        assert not (await read_catalog(session)).plans
        told = len(await outbox_of(session, "config.changed"))
        diff = await apply(session, DEFAULT, now)
        assert [str(change) for change in diff.changes] == [
            "api_product weather: update (archived: True -> False)"
        ]
        assert (await read_catalog(session)).plans
        assert len(await outbox_of(session, "config.changed")) == told + 1
        assert (await apply(session, DEFAULT, now)).changes == ()

    async def test_nothing_is_half_applied(self, session, now):
        await an_api_product(session, now=now, code="maps")
        await session.commit()
        before = await rows_written(session)
        stolen = DEFAULT.replace("routes: [weather]", "routes: [weather, maps]")
        with pytest.raises(RouteTakenError):
            await apply(session, stolen, now)
        await session.rollback()
        assert await rows_written(session) == before

    async def test_tells_the_projector_and_the_renderer(self, session, now):
        await apply(session, DEFAULT, now)
        product = await queries.api_product(session, "weather")
        assert await outbox_of(session, "config.changed") == [product.id]
        assert set(await outbox_of(session, "product.changed")) == {product.id}
        await apply(session, DEFAULT.replace("    service: weather", "    service: weather2"), now)
        assert await outbox_of(session, "config.changed") == [product.id, product.id]

    async def test_two_at_once_take_turns(self, sessions, now):
        async def run():
            async with sessions() as session, session.begin():
                return await apply(session, DEFAULT, now)

        diffs = await asyncio.gather(*(run() for _ in range(3)))
        assert sorted(len(diff.changes) for diff in diffs) == [0, 0, 11]


class TestDiffPlanFile:
    async def test_writes_nothing_and_says_what_apply_then_does(self, session, now):
        await apply(session, DEFAULT, now)
        written = await rows_written(session)
        file = parse_plan_file(
            DEFAULT.replace("units: 1000,", "units: 2000,").replace("name: Free", "name: Gratis")
        )
        diff = await diff_plan_file(session, file)
        assert [str(change) for change in diff.changes] == [
            "plan free: update (name: 'Free' -> 'Gratis')",
            "plan free: new_version (quota_units: 1000 -> 2000)",
        ]
        assert await rows_written(session) == written
        assert await apply_plan_file(session, file, actor=ACTOR, now=now) == diff
