"""What is done with a row next, as a table."""

from datetime import UTC, datetime, timedelta

import pytest

from control_plane.stripe_sync.usage.model import (
    AskAgain,
    Cancel,
    Drop,
    LookFirst,
    Rating,
    Row,
    RowKey,
    RowState,
    Send,
    Settle,
    Wait,
    decide,
    identifier_in,
    identifier_of,
)
from control_plane.stripe_sync.usage.moments import StripeTime
from control_plane.stripe_sync.usage.reasons import Reason
from tests.control_plane.stripe_sync.usage.test_moments import ANCHOR, MARCH, at_stripe, hour

USED = hour(9, 14)
NOW = USED + timedelta(hours=1, minutes=3)
NATIVE = Rating(event_name="km_main_weather_requests")
HIGHEST = 10**15 - 1


def key(revision=1, used=USED, phase="ph_1"):
    return RowKey(account_id="acc_1", hour=used, revision=revision, phase_id=phase, meter="requests")


def row(units=10, revision=1, state=RowState.WAITING, sent=None, used=USED, **more):
    return Row(
        key=key(revision, used),
        delta_units=units,
        state=state,
        first_sent_at=sent,
        stripe_at=sent and used,
        **more,
    )


def delivered(units=10, revision=1, ago=timedelta(hours=1)):
    return row(units, revision, RowState.DELIVERED, sent=NOW - ago)


def decided(one, *siblings, rating=NATIVE, now=NOW, found="at stripe", **more):
    place = at_stripe(**more) if found else None
    return decide(one, siblings, at_stripe=place, rating=rating, now=now)


class TestDecide:
    @pytest.mark.parametrize(
        ("rating", "decision"),
        [
            (NATIVE, Send(stripe_at=USED)),
            (Rating(event_name=None), Settle(state=RowState.OURS, reason=Reason.NOT_NATIVE)),
            (Rating(event_name=None, pushed=False), Wait(reason=Reason.NOT_PUSHED)),
        ],
    )
    def test_by_who_rates_the_meter(self, rating, decision):
        assert decided(row(), rating=rating) == decision

    def test_waits_for_stripes_subscription(self):
        assert decided(row(), found=None) == Wait(reason=Reason.NO_SUBSCRIPTION)

    @pytest.mark.parametrize(
        ("units", "decision"),
        [
            (HIGHEST, Send(stripe_at=USED)),
            (HIGHEST + 1, Settle(state=RowState.OURS, reason=Reason.TOO_LARGE)),
        ],
    )
    def test_sends_at_most_fifteen_digits(self, units, decision):
        assert decided(row(units)) == decision

    @pytest.mark.parametrize(
        ("age", "decision"),
        [
            (timedelta(days=34), Send(stripe_at=USED)),
            (timedelta(days=34, seconds=1), Settle(state=RowState.TOO_OLD, reason=Reason.TOO_OLD)),
        ],
    )
    def test_sends_nothing_that_stripe_would_find_too_old(self, age, decision):
        draft = (StripeTime(start=MARCH, end=MARCH + timedelta(days=60)),)
        assert decided(row(), now=USED + age, drafts=draft) == decision

    @pytest.mark.parametrize(
        ("early", "decision"),
        [(timedelta(minutes=4), Send(stripe_at=USED)), (timedelta(minutes=5), Wait(reason=Reason.AHEAD))],
    )
    def test_sends_nothing_that_lies_ahead(self, early, decision):
        assert decided(row(), now=USED - early) == decision

    @pytest.mark.parametrize("units", [10, -10])
    def test_leaves_what_a_final_invoice_covers_to_us(self, units):
        billed = (StripeTime(start=ANCHOR, end=NOW),)
        found = decided(row(units, 2), delivered(), billed=billed)
        assert found == Settle(state=RowState.OURS, reason=Reason.INVOICE_FINAL)

    @pytest.mark.parametrize(
        ("one", "siblings", "decision"),
        [
            (row(-10, 2), [row(10, 1)], Drop(revision=1)),
            (row(10, 1), [row(-10, 2)], Drop(revision=2)),
            (row(-10, 3), [row(10, 1), row(10, 2)], Drop(revision=2)),
            (row(-10, 2), [delivered(10)], Cancel(revision=1, stripe_at=USED)),
            (row(-10, 2), [delivered(10, ago=timedelta(hours=23))], Send(stripe_at=USED)),
            (row(-10, 2, edition=2), [delivered(10)], Send(stripe_at=USED)),  # Stripe refused to cancel it
            (row(-4, 2), [delivered(10)], Send(stripe_at=USED)),
            (row(-10, 3), [delivered(4), delivered(6, 2)], Send(stripe_at=USED)),
            (row(-10, 3), [delivered(10), delivered(10, 2)], Cancel(revision=2, stripe_at=USED)),
            (row(-4, 2), [row(10, 1)], Wait(reason=Reason.EARLIER_ROW)),
            (row(-10, 2), [row(10, 1, RowState.SENT, sent=NOW)], Wait(reason=Reason.EARLIER_ROW)),
            (row(-4, 2), [], Settle(state=RowState.OURS, reason=Reason.TAKES_MORE)),
            (row(-4, 2), [row(10, 1, RowState.REFUSED)], Settle(state=RowState.OURS, reason=Reason.TAKES_MORE)),
            (row(-4, 2), [row(10, 1, RowState.OURS)], Settle(state=RowState.OURS, reason=Reason.TAKES_MORE)),
            (
                row(-12, 3),
                [delivered(10), row(5, 2, RowState.REFUSED)],
                Settle(state=RowState.OURS, reason=Reason.TAKES_MORE),
            ),
        ],
    )
    def test_takes_back_no_more_than_is_there(self, one, siblings, decision):
        assert decided(one, *siblings) == decision

    @pytest.mark.parametrize(
        ("ago", "more", "decision"),
        [
            (timedelta(hours=1), {}, AskAgain()),
            (timedelta(hours=20), {}, AskAgain()),
            (timedelta(hours=20, seconds=1), {}, LookFirst()),
            (timedelta(hours=1), {"billed": (StripeTime(start=ANCHOR, end=NOW),)}, LookFirst()),
        ],
    )
    def test_looks_before_it_asks_again_what_stripe_may_have_forgotten(self, ago, more, decision):
        assert decided(row(10, 1, RowState.SENT, sent=NOW - ago), **more) == decision

    def test_looks_where_stripe_may_have_taken_what_it_refuses_now(self):
        doubtful = row(10, 1, RowState.SENT, sent=NOW, reason=Reason.MAYBE_REFUSED)
        assert decided(doubtful) == LookFirst()


class TestIdentifier:
    def test_is_another_for_each_row_and_edition(self):
        names = {
            identifier_of(installation, key(revision, used), edition)
            for installation in ("main", "other")
            for revision in (1, 2)
            for used in (USED, hour(9, 15))
            for edition in (1, 2)
        }
        assert len(names) == 16
        assert all(len(name) <= 100 for name in names)

    def test_fits_however_long_the_names_are(self):
        used = datetime(2026, 4, 9, 14, tzinfo=UTC)
        names = {
            identifier_of(
                "main",
                RowKey(account_id="a", hour=used, revision=n, phase_id="ph_" + "0" * 26, meter="m" * 48),
                1,
            )
            for n in (1, 10**6, 10**7)
        }
        assert len(names) == 3
        assert max(map(len, names)) <= 100

    def test_is_found_in_a_report_that_names_the_request(self):
        name = identifier_of("main", key(), 1)
        assert identifier_in(name, "main") == name
        assert identifier_in(f"km:main:usage-event:{name}:2", "main") == name
