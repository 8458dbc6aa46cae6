"""Trials that end soon: customers are told once, of what follows."""

from dataclasses import replace
from datetime import timedelta

import pytest

from control_plane.dunning.notices import notices_of
from control_plane.notifications.model import Branding
from control_plane.notifications.rendering import render_mail
from control_plane.subscriptions.operations import cancel
from control_plane.subscriptions.trials import extend_trial
from tests.control_plane.builders import ACTOR, a_published_plan, a_subscription, an_account

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


@pytest.fixture
async def trial(shop):
    """A trial of ten days beside the paid subscription of another account."""

    async def begin(days=10, **terms):
        async with shop.sessions() as session, session.begin():
            account = await an_account(session, now=shop.now, name="Grace")
            await a_published_plan(session, now=shop.now, code="pro", trial_days=days, **terms)
            return await a_subscription(session, account, now=shop.now, plan="pro", trial=True)

    return begin


async def text_of(shop):
    mail = (await shop.mails())[-1]
    return " ".join(render_mail(mail.kind, mail.values, branding=Branding()).text.split())


class TestTrialEnding:
    async def test_is_told_three_days_ahead_and_once(self, shop, trial):
        await trial()
        await shop.look_seldom(after=6 * DAY)
        assert not await shop.mails()
        for _ in range(3):
            await shop.look_seldom(after=DAY)
        assert await shop.kinds() == ["trial_ending"]
        assert "costs $49.00 a month" in await text_of(shop)

    async def test_is_told_again_when_it_was_made_longer(self, shop, trial):
        found = await trial()
        await shop.look_seldom(after=8 * DAY)
        async with shop.sessions() as session, session.begin():
            later = found.trial_ends_at + 10 * DAY
            await extend_trial(session, subscription_id=found.id, ends_at=later, actor=ACTOR, now=shop.now)
        await shop.look_seldom()
        assert len(await shop.mails()) == 1
        await shop.look_seldom(after=10 * DAY)
        assert len(await shop.mails()) == 2

    async def test_says_so_where_nothing_follows(self, shop, trial):
        found = await trial()
        async with shop.sessions() as session, session.begin():
            await cancel(session, subscription_id=found.id, at="period_end", actor=ACTOR, now=shop.now)
        await shop.look_seldom(after=8 * DAY)
        assert "Nothing is charged" in await text_of(shop)

    async def test_a_trial_as_short_as_the_notice_is_told_of_by_nobody(self, shop, trial):
        await trial(days=3)
        await shop.look_seldom(after=HOUR)
        assert not await shop.mails()

    async def test_can_be_left_out(self, shop, trial):
        shop.config = replace(shop.config, trial_notice=timedelta())
        await trial()
        await shop.look_seldom(after=9 * DAY)
        assert not await shop.mails()

    async def test_stands_on_the_accounts_pages(self, shop, trial):
        found = await trial()
        async with shop.sessions() as session:
            early = await notices_of(session, found.account_id, trial_notice=3 * DAY, now=shop.now)
            (late,) = await notices_of(session, found.account_id, trial_notice=3 * DAY, now=shop.now + 8 * DAY)
        assert not early
        assert (late.code, late.until) == ("trial_ending", found.trial_ends_at)
