"""Whatever happens in whatever order: what is charged in the end is what is due, and no money is lost or made."""

import pytest

from tests.control_plane.billing.invoices.billing_kit import Billing
from tests.control_plane.billing.invoices.histories import ACTIONS, World

ACCOUNTS, STEPS = 5, 10


class TestHistories:
    @pytest.mark.parametrize("seed", [3])
    async def test_come_to_what_is_due_in_the_end(self, billing: Billing, seed: int):
        world = World(billing, seed)
        await world.begin(accounts=ACCOUNTS)
        for _ in range(STEPS):
            await world.step()
        await world.finish()
        assert set(world.done) == set(ACTIONS)
        for books in world.books:
            # discounts are rounded on each invoice and note
            most = 0 if not books.discounted else await world.papers(books)
            assert abs(await world.charged_minor(books) - books.due_minor()) <= most
        for account, billed, settled in await world.cash():
            assert billed == settled, account
        drew, gone = await world.drawn()
        assert drew == gone > 0
