"""Usage bears a moment of the period and the plan that Stripe has it in, or Stripe cannot bill it."""

from datetime import UTC, datetime, timedelta

import pytest

from control_plane.foundation.clock import floor_hour
from control_plane.stripe_sync.usage.moments import AtStripe, PlanSpan, StripeTime, closed_because, place_of

ANCHOR = datetime(2026, 1, 31, 10, 17, 5, tzinfo=UTC)
MARCH, APRIL = datetime(2026, 3, 31, 10, 17, 5, tzinfo=UTC), datetime(2026, 4, 30, 10, 17, 5, tzinfo=UTC)


def hour(day, of, month=4):
    return datetime(2026, month, day, of, tzinfo=UTC)


def at_stripe(**more):
    given = {
        "customer_id": "cus_1",
        "started_at": ANCHOR,
        "ended_at": None,
        "billing_cycle_anchor": ANCHOR,
        "current_period": StripeTime(start=MARCH, end=APRIL),
        "anchor_at": ANCHOR.replace(minute=0, second=0),
        "interval": "month",
        "spans": (PlanSpan(starts_at=ANCHOR, ours_from=ANCHOR),),
        "phase_starts": {"ph_1": ANCHOR},
    }
    return AtStripe(**given | more)


class TestMomentOfAnHour:
    @pytest.mark.parametrize(
        ("used", "moment"),
        [
            (hour(15, 12), hour(15, 12)),
            (hour(31, 9, 3), hour(31, 9, 3)),  # the last of the period before
            (hour(31, 10, 3), MARCH),  # the first of this one: Stripe's began in it
            (hour(31, 11, 3), hour(31, 11, 3)),
            (hour(30, 9), hour(30, 9)),
            (hour(30, 10), APRIL),  # the first of the next
            (hour(28, 10, 2), datetime(2026, 2, 28, 10, 17, 5, tzinfo=UTC)),  # a period long over
            (hour(31, 10, 1), ANCHOR),  # its very first hour
        ],
    )
    def test_is_its_beginning_inside_stripes_period(self, used, moment):
        assert place_of(used, "ph_1", at_stripe()).moment == moment

    def test_lies_in_our_period_for_every_hour_of_a_year(self):
        found = at_stripe()
        used = ANCHOR.replace(minute=0, second=0)
        before = None
        for _ in range(24 * 400):
            place = place_of(used, "ph_1", found)
            assert place.moment in place.period
            assert used <= place.moment < used + timedelta(hours=1)
            assert before is None or before < place.moment
            before, used = place.moment, used + timedelta(hours=1)

    def test_after_a_change_of_plan_bears_a_moment_of_the_new_one(self):
        change = datetime(2026, 4, 9, 14, 20, 31, tzinfo=UTC)
        ours = change + timedelta(milliseconds=2_400)  # heard of it later
        found = at_stripe(
            spans=(PlanSpan(starts_at=ANCHOR, ours_from=ANCHOR), PlanSpan(starts_at=change, ours_from=ours)),
            phase_starts={"ph_1": ANCHOR, "ph_2": ours},
        )
        assert place_of(hour(9, 14), "ph_1", found).moment == hour(9, 14)
        assert place_of(hour(9, 14), "ph_2", found).moment == change + timedelta(seconds=3)
        assert place_of(hour(9, 15), "ph_2", found).moment == hour(9, 15)

    def test_of_a_downgrade_at_the_periods_end_follows_stripes_switch(self):
        found = at_stripe(
            spans=(
                PlanSpan(starts_at=ANCHOR, ours_from=ANCHOR),
                PlanSpan(starts_at=APRIL, ours_from=APRIL.replace(minute=0, second=0)),
            ),
            phase_starts={"ph_1": ANCHOR, "ph_2": APRIL.replace(minute=0, second=0)},
        )
        assert place_of(hour(30, 9), "ph_1", found).moment == hour(30, 9)
        assert place_of(hour(30, 10), "ph_2", found).moment == APRIL
        # the old plan's last hour is on the period's invoice, which is a draft still
        assert closed_because(place_of(hour(30, 9), "ph_1", found), found, APRIL + timedelta(hours=1)) is None

    def test_before_a_trial_was_read_as_ended_is_in_the_period_that_begins_there(self):
        trial_end = datetime(2026, 4, 10, 8, tzinfo=UTC)
        found = at_stripe(
            started_at=trial_end - timedelta(days=14, seconds=55),
            billing_cycle_anchor=trial_end,
            current_period=StripeTime(start=trial_end - timedelta(days=14, seconds=55), end=trial_end),
            anchor_at=trial_end,
            spans=(),
            phase_starts={"ph_1": trial_end},
        )
        place = place_of(trial_end, "ph_1", found)
        assert place.moment == trial_end
        assert place.period.start == trial_end

    def test_never_lies_after_the_subscriptions_end(self):
        end = datetime(2026, 4, 9, 14, 0, 2, tzinfo=UTC)
        found = at_stripe(ended_at=end, phase_starts={"ph_1": end - timedelta(milliseconds=400)})
        assert place_of(hour(9, 14), "ph_1", found).moment == end - timedelta(seconds=1)


class TestClosed:
    def test_the_period_that_runs_is_open(self):
        assert closed(hour(15, 12), now=hour(15, 14)) is None

    def test_an_ended_period_is_open_while_its_invoice_is_a_draft(self):
        draft = StripeTime(start=MARCH, end=APRIL)
        late = APRIL + timedelta(days=20)
        assert closed(hour(30, 9), now=late, drafts=(draft,)) is None
        assert closed(hour(30, 9), now=late) == "invoice_final"

    def test_an_ended_period_is_open_before_anybody_has_heard_of_its_invoice(self):
        assert closed(hour(30, 9), now=APRIL + timedelta(hours=3)) is None

    @pytest.mark.parametrize("drafts", [(), (StripeTime(start=MARCH, end=APRIL),)])
    def test_what_a_final_invoice_covers_is_not(self, drafts):
        billed = (StripeTime(start=MARCH, end=APRIL),)
        now = APRIL + timedelta(hours=2)
        assert closed(hour(30, 9), now=now, billed=billed, drafts=drafts) == "invoice_final"
        assert closed(hour(30, 10), now=now, billed=billed, drafts=drafts) is None

    def test_the_old_plan_is_not_once_the_plan_has_changed_within_a_period(self):
        change = datetime(2026, 4, 9, 14, 20, 31, tzinfo=UTC)
        spans = (PlanSpan(starts_at=ANCHOR, ours_from=ANCHOR), PlanSpan(starts_at=change, ours_from=change))
        assert closed(hour(9, 13), now=hour(9, 15), spans=spans) == "plan_changed"
        assert closed(hour(9, 13), now=hour(9, 14), spans=spans) is None  # planned, and not yet so
        assert closed(hour(9, 15), now=hour(9, 17), spans=spans, phase="ph_2", phase_start=change) is None

    def test_the_old_plan_is_not_where_the_change_began_another_period(self):
        change = datetime(2026, 4, 9, 14, 20, 31, tzinfo=UTC)
        spans = (PlanSpan(starts_at=ANCHOR, ours_from=ANCHOR), PlanSpan(starts_at=change, ours_from=change))
        yearly = {
            "interval": "year",
            "anchor_at": floor_hour(change),
            "billing_cycle_anchor": change,
            "current_period": StripeTime(start=change, end=change.replace(year=2027)),
        }
        assert closed(hour(9, 13), now=hour(9, 15), spans=spans, **yearly) == "plan_changed"

    def test_after_the_end_it_is_open_as_long_as_a_final_invoice_may_be_a_draft(self):
        end = hour(9, 14)
        assert closed(hour(9, 13), now=end + timedelta(hours=2), ended_at=end) is None
        assert closed(hour(9, 13), now=end + timedelta(days=4), ended_at=end) == "invoice_final"


def closed(used, *, now, phase="ph_1", phase_start=ANCHOR, **more):
    found = at_stripe(**more, phase_starts={"ph_1": ANCHOR, phase: phase_start})
    return closed_because(place_of(used, phase, found), found, now)
