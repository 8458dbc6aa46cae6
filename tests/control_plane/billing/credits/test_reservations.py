"""Reservations: held before something is done, settled after."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from control_plane.billing.credits.due import Looked, look
from control_plane.billing.credits.model import (
    CreditsUsedUpError,
    ReferenceTakenError,
    ReservationNotFoundError,
    ReservationOverError,
)
from control_plane.billing.credits.operations import revoke_grant
from control_plane.billing.credits.queries import credit_sums, reservation_page
from control_plane.billing.credits.reservations import (
    NewReservation,
    release_reservation,
    reserve_credits,
    settle_reservation,
)
from control_plane.foundation.errors import ValidationFailedError
from tests.control_plane.billing.credits.helpers import a_grant, entries_of, left_of, sums_agree
from tests.control_plane.builders import ACTOR, an_account, an_api_product

NOV_1 = datetime(2026, 11, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
KEEP = timedelta(hours=72)


async def held(session, account_id, amount_minor, *, now=NOV_1, ttl=HOUR, reference="job 1", api_product=None):
    wanted = NewReservation(amount_minor=amount_minor, ttl=ttl, reference=reference, api_product=api_product)
    return await reserve_credits(session, account_id=account_id, wanted=wanted, actor=ACTOR, now=now)


async def settled(session, reservation, amount_minor, *, now=NOV_1):
    return await settle_reservation(
        session, reservation_id=reservation.id, amount_minor=amount_minor, actor=ACTOR, now=now
    )


async def released(session, reservation, *, now=NOV_1):
    return await release_reservation(session, reservation_id=reservation.id, actor=ACTOR, now=now)


@pytest.fixture
async def account(session):
    return await an_account(session, now=NOV_1)


class TestReserve:
    async def test_keeps_others_from_what_is_held(self, session, account):
        await a_grant(session, account.id, 100, now=NOV_1)
        await held(session, account.id, 70)
        (sums,) = await credit_sums(session, account.id, now=NOV_1)
        assert (sums.available_minor, sums.reserved_minor) == (30, 70)
        with pytest.raises(CreditsUsedUpError, match=r"\$0\.31 were asked for, and \$0\.30"):
            await held(session, account.id, 31, reference="job 2")

    async def test_the_same_reference_holds_once(self, session, account):
        await a_grant(session, account.id, 100, now=NOV_1)
        first = await held(session, account.id, 70)
        assert (await held(session, account.id, 70, now=NOV_1 + HOUR)).id == first.id
        with pytest.raises(ReferenceTakenError):
            await held(session, account.id, 71)
        assert await entries_of(session, account.id) == [("grant", 100), ("reserve", -70)]

    async def test_uses_credits_of_its_own_api_product_only(self, session, account):
        await an_api_product(session, now=NOV_1)
        await a_grant(session, account.id, 100, now=NOV_1, api_product="weather")
        with pytest.raises(CreditsUsedUpError):
            await held(session, account.id, 10)
        assert (await held(session, account.id, 10, api_product="weather")).held_minor == 10

    async def test_refuses_what_cannot_be(self, session, account):
        for wrong, field in (
            ({"amount_minor": 0}, "amount"),
            ({"ttl": timedelta(0)}, "ttl_seconds"),
            ({"ttl": timedelta(days=32)}, "ttl_seconds"),
            ({"reference": ""}, "reference"),
        ):
            with pytest.raises(ValidationFailedError) as refused:
                await held(session, account.id, **{"amount_minor": 10, **wrong})
            assert refused.value.field == field, wrong

    async def test_fifty_at_once_never_hold_more_than_there_is(self, sessions):
        async with sessions() as session, session.begin():
            account = await an_account(session, now=NOV_1)
            grants = [await a_grant(session, account.id, 100, now=NOV_1 + n * HOUR) for n in range(2)]

        async def one(number):
            async with sessions() as session, session.begin():
                try:
                    await held(session, account.id, 7, now=NOV_1 + DAY, reference=f"job {number}")
                except CreditsUsedUpError:
                    return 0
                return 1

        assert sum(await asyncio.gather(*(one(number) for number in range(50)))) == 200 // 7
        async with sessions() as session:
            assert sum(await left_of(session, *grants)) == 200 - 28 * 7
            assert await sums_agree(session)


class TestSettle:
    async def test_draws_what_it_came_to_and_gives_the_rest_back(self, session, account):
        grants = [await a_grant(session, account.id, amount, now=NOV_1) for amount in (40, 100)]
        reservation = await held(session, account.id, 70)
        await settled(session, reservation, 50)
        assert reservation.status == "settled"
        # what is used first is used up, what is used last has its rest back
        assert await left_of(session, *grants) == [0, 90]
        assert await sums_agree(session)

    async def test_draws_more_than_was_held_where_more_is_left(self, session, account):
        grant = await a_grant(session, account.id, 100, now=NOV_1)
        await settled(session, await held(session, account.id, 30), 80)
        assert await left_of(session, grant) == [20]

    async def test_refuses_more_than_is_left_and_changes_nothing(self, sessions):
        async with sessions() as session, session.begin():
            account = await an_account(session, now=NOV_1)
            grant = await a_grant(session, account.id, 100, now=NOV_1)
            reservation = await held(session, account.id, 30)
        with pytest.raises(CreditsUsedUpError, match=r"\$1\.01 were asked for, and \$1\.00"):
            async with sessions() as session, session.begin():
                await settled(session, reservation, 101)
        async with sessions() as session:
            assert await left_of(session, grant) == [70]
            (page,) = (await reservation_page(session, account.id, limit=5)).items
            assert page.status == "held"

    async def test_again_with_the_same_amount_changes_nothing(self, session, account):
        grant = await a_grant(session, account.id, 100, now=NOV_1)
        reservation = await held(session, account.id, 30)
        await settled(session, reservation, 20)
        await settled(session, reservation, 20, now=NOV_1 + DAY)
        assert await left_of(session, grant) == [80]
        with pytest.raises(ReservationOverError, match="is settled already"):
            await settled(session, reservation, 21)

    async def test_for_nothing_gives_all_back(self, session, account):
        grant = await a_grant(session, account.id, 100, now=NOV_1)
        reservation = await held(session, account.id, 30)
        assert (await settled(session, reservation, 0)).settled_minor == 0
        assert await left_of(session, grant) == [100]

    async def test_after_it_expired_is_refused_even_before_the_worker_came_by(self, session, account):
        await a_grant(session, account.id, 100, now=NOV_1)
        reservation = await held(session, account.id, 30)
        with pytest.raises(ReservationOverError, match="is expired already"):
            await settled(session, reservation, 10, now=NOV_1 + HOUR)

    async def test_of_an_unknown_reservation_is_refused(self, session):
        with pytest.raises(ReservationNotFoundError):
            await settle_reservation(session, reservation_id="crs_0", amount_minor=1, actor=ACTOR, now=NOV_1)

    async def test_pays_from_a_grant_that_expired_or_was_revoked_while_it_was_held(self, session, account):
        short = await a_grant(session, account.id, 50, now=NOV_1, expires_at=NOV_1 + HOUR)
        revoked = await a_grant(session, account.id, 50, now=NOV_1)
        reservation = await held(session, account.id, 100, ttl=30 * DAY)
        later = NOV_1 + 10 * DAY
        await look(session, now=later, keep=KEEP)
        await revoke_grant(session, grant_id=revoked.id, actor=ACTOR, now=later)
        await settled(session, reservation, 60, now=later)
        await look(session, now=later + DAY, keep=KEEP)
        kinds = [kind for kind, _ in await entries_of(session, account.id)]
        assert (kinds.count("draw"), kinds.count("revoke"), kinds.count("expire")) == (2, 1, 0)
        assert await left_of(session, short, revoked) == [0, 0]
        assert await sums_agree(session)


class TestRelease:
    async def test_gives_all_back_once(self, session, account):
        grant = await a_grant(session, account.id, 100, now=NOV_1)
        reservation = await held(session, account.id, 30)
        await released(session, reservation)
        await released(session, reservation)
        assert await left_of(session, grant) == [100]
        with pytest.raises(ReservationOverError, match="is released already"):
            await settled(session, reservation, 1)

    async def test_of_what_was_settled_is_refused(self, session, account):
        await a_grant(session, account.id, 100, now=NOV_1)
        reservation = await held(session, account.id, 30)
        await settled(session, reservation, 30)
        with pytest.raises(ReservationOverError):
            await released(session, reservation)

    async def test_happens_by_itself_when_the_time_is_up(self, session, account):
        grant = await a_grant(session, account.id, 100, now=NOV_1)
        reservation = await held(session, account.id, 30)
        assert await look(session, now=NOV_1 + HOUR / 2, keep=KEEP) == Looked()
        assert await look(session, now=NOV_1 + HOUR, keep=KEEP) == Looked(reservations=1)
        assert await look(session, now=NOV_1 + HOUR, keep=KEEP) == Looked()
        assert (reservation.status, await left_of(session, grant)) == ("expired", [100])
