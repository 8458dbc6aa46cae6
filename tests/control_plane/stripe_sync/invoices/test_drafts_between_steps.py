"""What happens to a draft of Stripe's between two steps of ours."""

import pytest

from control_plane.stripe_sync.client import options
from control_plane.stripe_sync.invoices import tasks
from control_plane.stripe_sync.invoices.corrections import correct_billed
from control_plane.stripe_sync.invoices.tables import StripeInvoiceTask
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.subscriptions.applying import apply_subscription
from control_plane.stripe_sync.usage.queue import Claimed
from control_plane.stripe_sync.usage.sender import claim_rows, handle
from tests.control_plane.builders import FLAT_49
from tests.control_plane.stripe_sync.invoices.conftest import ENDS_AT, HOUR, OVERAGE, Bought
from tests.control_plane.stripe_sync.invoices.test_drafts import FIRST_HOUR, MINIMUM, MINUTE, adjustments, task_of


class TestLastDraft:
    async def test_is_not_corrected_before_stripe_makes_it_final(self, bought: Bought) -> None:
        await bought.plan("pro")
        await bought.buy("pro")
        await bought.ctx.stripe.call(
            lambda c: c.v1.subscriptions.update_async(
                bought.stripe_id, {"cancel_at_period_end": True}, options("km:test:cancel")
            )
        )
        bought.at(ENDS_AT + MINUTE)
        await bought.use(1_400, hour=FIRST_HOUR + 5 * HOUR)
        bought.at(ENDS_AT + 5 * MINUTE)
        await bought.hear()
        await bought.work()
        assert (await task_of(bought)).state == "done"
        assert bought.latest()["status"] == "draft"
        await correct_billed(bought.ctx)
        assert await adjustments(bought) == []
        bought.at(ENDS_AT + 2 * HOUR)
        await bought.hear()
        await correct_billed(bought.ctx)
        assert await adjustments(bought) == []
        assert bought.latest()["total"] == 600

    async def test_takes_late_usage_of_earlier_periods(self, bought: Bought) -> None:
        """The subscription is over, and its last invoice is still to come: nothing is written off before."""
        await bought.plan("pro")
        await bought.buy("pro")
        bought.at(ENDS_AT + 10 * MINUTE)
        await bought.hear()
        await bought.work()
        bought.at(ENDS_AT + 2 * HOUR)
        await bought.hear()
        await bought.use(1_400, hour=FIRST_HOUR + 5 * HOUR)
        await bought.ctx.stripe.call(
            lambda c: c.v1.subscriptions.update_async(
                bought.stripe_id, {"cancel_at_period_end": True}, options("km:test:cancel")
            )
        )
        bought.at(ENDS_AT.replace(month=5) + MINUTE)
        await apply_subscription(bought.ctx, bought.stripe_id)
        await correct_billed(bought.ctx)
        await bought.hear()
        await correct_billed(bought.ctx)
        assert await adjustments(bought) == []
        await bought.work()
        assert await adjustments(bought) == [("late_usage", "item", "done", 600)]
        assert bought.latest()["total"] == 600


class TestRefusedItems:
    async def test_are_on_the_next_draft(self, bought: Bought) -> None:
        await bought.plan("pro", FLAT_49, OVERAGE, MINIMUM)
        await bought.buy("pro")
        bought.at(ENDS_AT + 30 * MINUTE)
        await bought.hear()
        bought.sim.control.fault("error_before", method="POST", path="/v1/invoiceitems", count=1)
        await bought.work()
        assert (await task_of(bought)).state == "adjusting"
        bought.sim.control.clear_faults()
        bought.at(ENDS_AT + 2 * HOUR)
        await bought.work()
        assert (await task_of(bought)).state == "late"
        bought.at(ENDS_AT.replace(month=5) + 10 * MINUTE)
        await bought.hear()
        await bought.work()
        assert bought.latest()["total"] == 4_900 + 12_000

    async def test_do_not_keep_a_held_draft_from_its_customer(
        self, bought: Bought, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await bought.plan("pro", FLAT_49, OVERAGE, MINIMUM)
        await bought.buy("pro")
        bought.at(ENDS_AT - 3 * HOUR)
        await bought.use(1_100, hour=FIRST_HOUR + 5 * HOUR, sealed=False)
        bought.at(ENDS_AT + 51 * MINUTE)
        await bought.hear()
        await bought.work()
        assert (await task_of(bought)).held_at is not None
        await bought.seal_open()
        bought.at(ENDS_AT + 5 * HOUR)

        async def refused(*_args: object, **_more: object) -> bool:
            return False

        monkeypatch.setattr(tasks, "put_item", refused)
        await bought.work()
        task = await task_of(bought)
        assert (task.state, task.reason, task.usage_as_of) == ("late", "Stripe refused 1 of 1 items", None)
        assert bought.latest()["status"] == "paid"


class TestUsageSentMeanwhile:
    async def test_is_charged_once(self, bought: Bought, monkeypatch: pytest.MonkeyPatch) -> None:
        """The sender takes a row up after the draft was found ready, and before its adjustments are decided."""
        await bought.plan("pro")
        await bought.buy("pro")
        bought.at(ENDS_AT + 10 * MINUTE)
        await bought.hear()
        taken: list[Claimed] = []
        ready = tasks.why_not_ready

        async def late(ctx: StripeContext, task: StripeInvoiceTask) -> str | None:
            reason = await ready(ctx, task)
            if not taken:
                await bought.use(1_400, hour=FIRST_HOUR + 5 * HOUR)
                taken.append(await claim_rows(ctx.sessions, ctx.stripe, now=ctx.now, limit=10))
            return reason

        monkeypatch.setattr(tasks, "why_not_ready", late)
        await bought.work()
        [claimed] = taken
        for one in claimed.work:
            await handle(bought.sessions, bought.ctx.stripe, one, clock=lambda: bought.ctx.now)
        for minutes in (15, 20, 25):
            bought.at(ENDS_AT + minutes * MINUTE)
            await bought.work()
        assert (await task_of(bought)).state == "done"
        bought.at(ENDS_AT + 2 * HOUR)
        assert (await bought.hear()).total_minor == 4_900 + 600
