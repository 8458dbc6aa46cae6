"""When the gateway must be told of a spend cap anew, though nobody changed anything.

A cap is compiled for one billing period. Around the moment at which one ends, a cap that suits both is in force:
which period a call belongs to is Redis' clock to say, and it may differ from ours. After a change of plan, what
was used before it is read again at ever longer intervals, until full sweeps are as frequent: usage arrives late.
"""

from datetime import datetime, timedelta

from control_plane.foundation.period import BillingPeriod
from control_plane.subscriptions.queries import period_at, phase_at
from control_plane.subscriptions.tables import Subscription

# more than clocks may differ, and than the gateway waits for news
EDGE = timedelta(minutes=2)
FIRST_PAUSE = timedelta(seconds=2)
LAST_PAUSE = timedelta(minutes=10)


def cap_periods(subscription: Subscription, now: datetime) -> tuple[BillingPeriod, ...]:
    """Return the billing period for which a cap must be right at `now`; both, where one ends within `EDGE`."""
    before = period_at(subscription, now - EDGE)
    after = period_at(subscription, now + EDGE)
    return (before,) if before == after else (before, after)


def renew_cap(subscription: Subscription, now: datetime) -> None:
    """Set when the gateway must be told of the subscription's cap next (phases loaded); without a cap, never."""
    subscription.spend_cap_due_at = None
    if subscription.spend_cap_minor is None:
        return
    period = period_at(subscription, now)
    edges = [edge for edge in (period.start + EDGE, period.end - EDGE, period.end + EDGE) if edge > now]
    due = min(edges)
    phase = phase_at(subscription, now)
    if phase is not None and phase.starts_at > max(period.start, subscription.started_at):
        pause = max(FIRST_PAUSE, (now - phase.starts_at) / 4)
        if pause < LAST_PAUSE:
            due = min(due, now + pause)
    subscription.spend_cap_due_at = due
