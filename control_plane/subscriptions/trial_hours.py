"""The hour in which a trial was ended early. Billing begins with it; what the trial used in it counts nowhere."""

from datetime import datetime

from sqlalchemy import ColumnElement, and_
from sqlalchemy.orm import InstrumentedAttribute

from control_plane.subscriptions.tables import Subscription, SubscriptionPhase
from control_plane.subscriptions.timeline import PhaseKind


def is_before_billing(hour: InstrumentedAttribute[datetime]) -> ColumnElement[bool]:
    """Say of usage in an hour whether a trial had it in what is a billing period by now.

    For statements that join SubscriptionPhase and Subscription.
    """
    return and_(SubscriptionPhase.kind == PhaseKind.TRIAL.value, hour >= Subscription.anchor_at)
