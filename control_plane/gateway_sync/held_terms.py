"""The terms of a free plan in place of a past due subscription's own. Pure."""

from dataclasses import replace

from control_plane.gateway_sync.allowances import Counting
from control_plane.gateway_sync.records import AddedTerms, PlanTerms, SubscriptionSnapshot
from control_plane.rating.model import WHOLE_PERIOD

MONTHS_OF_YEAR = 12


def held_to(snapshot: SubscriptionSnapshot, free: PlanTerms) -> SubscriptionSnapshot:
    """Return the snapshot with the limits, quota and entitlements of `free`, now and in what is known to come.

    The billing period stays the subscription's own, and everything that was used in it counts; so do calls from
    now on, for its own terms, once they hold again. A spend cap stays.
    """
    quota_units = free.quota_units
    if quota_units is not None and snapshot.interval == "year" and free.interval == "month":
        quota_units *= MONTHS_OF_YEAR
    then = snapshot.next
    if then is not None and then[1] is not None:
        then = then[0], held_to(then[1], free)
    return replace(
        snapshot,
        plan=replace(free, quota_units=quota_units, interval=snapshot.plan.interval, on_past_due="serve"),
        windows_override=None,
        quota_override=None,
        quota_cap_override=None,
        concurrency_override=None,
        added=AddedTerms(),
        counting=_of_all(snapshot.counting),
        fitting=None,
        # what is larger can be had by paying
        offers=(),
        next=then,
    )


def _of_all(counting: Counting | None) -> Counting | None:
    """Return a way of counting by which all units of the period count, still kept apart as before."""
    if counting is None:
        return None
    allowance = counting.allowance
    if allowance is not None:
        allowance = replace(allowance, carried=True, quota=None)
    return replace(counting, share=WHOLE_PERIOD, allowance=allowance)
