"""Drafts: kept, changed, thrown away, published; and what was published stays as it is."""

import pytest

from control_plane.catalog import queries
from control_plane.catalog.drafts import discard_draft, save_draft
from control_plane.catalog.model import PlanFacts, PlanTerms, PriceTerms
from control_plane.catalog.operations import create_plan
from control_plane.catalog.publishing import NoDraftError, draft_problems, publish_draft, publish_version
from control_plane.catalog.queries import terms_of_version
from control_plane.foundation.errors import ValidationFailedError
from tests.control_plane.builders import (
    ACTOR,
    FLAT_49,
    a_new_version,
    a_published_plan,
    an_api_product,
    audit_of,
    outbox_of,
)

FLAT_EUR = PriceTerms(model="flat", meter=None, params={"amount": "45"}, currency="EUR")
COMMITMENT = PriceTerms(model="commitment", meter=None, params={"amount": "500", "counts": "usage"})


def terms(**values) -> PlanTerms:
    return PlanTerms(**{"interval": "month", "currency": "USD", "prices": (FLAT_49,), **values})


async def kept(session, now, code="starter", **values):
    return await save_draft(session, plan_code=code, terms=terms(**values), actor=ACTOR, now=now)


class TestSaveDraft:
    async def test_keeps_one_draft_and_sells_what_was_on_sale(self, session, now):
        on_sale = await a_published_plan(session, now=now)
        before = len(await outbox_of(session, "product.changed"))
        draft = await kept(session, now, quota_units=7)
        assert (draft.status, draft.version) == ("draft", 2)
        changed = await kept(session, now, quota_units=8, prices=(FLAT_49, FLAT_EUR))
        assert changed.id == draft.id
        read = await queries.draft_of_plan(session, on_sale.plan_id)
        assert terms_of_version(read).quota_units == 8
        assert terms_of_version(read).in_currency("EUR").prices[0].params == {"amount": "45.00"}
        found = await queries.published_versions(session, [on_sale.plan_id])
        assert found[on_sale.plan_id].id == on_sale.id
        assert len(await outbox_of(session, "product.changed")) == before

    async def test_changes_nothing_a_second_time(self, session, now):
        await a_published_plan(session, now=now)
        draft = await kept(session, now, quota_units=7)
        again = await kept(session, now, quota_units=7)
        assert again.id == draft.id
        assert [row.action for row in await audit_of(session, draft.id)] == ["plan_version.drafted"]

    async def test_takes_what_cannot_be_sold_yet_and_says_why(self, session, now):
        on_sale = await a_published_plan(session, now=now)
        draft = await kept(session, now, prices=(COMMITMENT,), billed_by="stripe", quota_on_change="carry")
        plan = await queries.plan(session, "starter")
        problems = await draft_problems(session, plan, terms_of_version(draft))
        assert [problem.field for problem in problems] == ["quota_on_change", "prices[0]"]
        with pytest.raises(ValidationFailedError) as refused:
            await publish_draft(session, plan_code="starter", actor=ACTOR, now=now)
        assert list(refused.value.problems) == problems
        found = await queries.published_versions(session, [on_sale.plan_id])
        assert found[on_sale.plan_id].id == on_sale.id

    async def test_refuses_a_field_that_is_wrong_by_itself(self, session, now):
        await a_published_plan(session, now=now)
        with pytest.raises(ValidationFailedError) as refused:
            await kept(session, now, trial_days=0, quota_units=0)
        assert [problem.field for problem in refused.value.problems] == ["quota.units", "trial.days"]

    async def test_refuses_prices_that_differ_between_currencies_by_more_than_amounts(self, session, now):
        await a_published_plan(session, now=now)
        other = PriceTerms(model="flat", meter=None, params={"amount": "1"}, currency="EUR", description="x")
        for prices in [(FLAT_49, other), (FLAT_49, FLAT_EUR, FLAT_EUR)]:
            with pytest.raises(ValidationFailedError, match="EUR"):
                await kept(session, now, prices=prices)


class TestPublishDraft:
    async def test_puts_it_on_sale_and_supersedes(self, session, now):
        first = await a_published_plan(session, now=now)
        draft = await kept(session, now, quota_units=7)
        version = await publish_draft(session, plan_code="starter", actor=ACTOR, now=now)
        assert (version.id, version.status, first.status) == (draft.id, "published", "superseded")
        assert await queries.draft_of_plan(session, first.plan_id) is None
        with pytest.raises(NoDraftError):
            await publish_draft(session, plan_code="starter", actor=ACTOR, now=now)

    async def test_is_how_a_plan_without_terms_begins(self, session, now):
        await an_api_product(session, now=now)
        facts = PlanFacts(code="new", name="New", api_product="weather", position=0)
        await create_plan(session, plan=facts, actor=ACTOR, now=now)
        await kept(session, now, code="new")
        version = await publish_draft(session, plan_code="new", actor=ACTOR, now=now)
        assert (version.version, version.status) == (1, "published")

    async def test_drops_a_draft_that_says_what_is_on_sale(self, session, now):
        first = await a_published_plan(session, now=now)
        await kept(session, now)
        assert (await publish_draft(session, plan_code="starter", actor=ACTOR, now=now)).id == first.id
        assert await queries.draft_of_plan(session, first.plan_id) is None

    async def test_a_draft_outlives_other_terms_being_published(self, session, now):
        first = await a_published_plan(session, now=now)
        await kept(session, now, quota_units=7)
        second = await a_new_version(session, now=now, quota_units=5)
        draft = await queries.draft_of_plan(session, first.plan_id)
        assert (second.version, draft.version, draft.quota_units) == (2, 3, 7)
        third = await publish_draft(session, plan_code="starter", actor=ACTOR, now=now)
        assert (third.version, third.quota_units) == (3, 7)

    async def test_refuses_an_add_on_whose_quota_no_plan_could_take(self, session, now):
        await a_published_plan(session, now=now)
        facts = PlanFacts(code="more", name="More", api_product="weather", position=0, kind="add_on")
        await create_plan(session, plan=facts, actor=ACTOR, now=now)
        extra = terms(quota_units=100)
        with pytest.raises(ValidationFailedError, match="no plan of weather on sale has a quota"):
            await publish_version(session, plan_code="more", terms=extra, actor=ACTOR, now=now)
        await a_new_version(session, now=now, quota_units=5)
        version = await publish_version(session, plan_code="more", terms=extra, actor=ACTOR, now=now)
        assert version.status == "published"


class TestDiscardDraft:
    async def test_throws_it_away_with_its_prices(self, session, now):
        first = await a_published_plan(session, now=now)
        draft = await kept(session, now, quota_units=7)
        await discard_draft(session, plan_code="starter", actor=ACTOR, now=now)
        assert await queries.draft_of_plan(session, first.plan_id) is None
        assert await queries.plan_versions(session, [draft.id]) == {}
        actions = [row.action for row in await audit_of(session, draft.id)]
        assert sorted(actions) == ["plan_version.discarded", "plan_version.drafted"]
        with pytest.raises(NoDraftError):
            await discard_draft(session, plan_code="starter", actor=ACTOR, now=now)
