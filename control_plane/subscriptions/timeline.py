"""What ran when under a subscription: its phases and the add-ons in force in each. Pure values."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Self

from control_plane.foundation.clock import floor_hour
from control_plane.foundation.period import BillingPeriod, period_containing
from control_plane.subscriptions.earlier_quotas import EarlierQuota, own_quota_in


class PhaseKind(StrEnum):
    """What a phase costs: only `paid` ones cost anything. In a paused one no call is allowed."""

    PAID = "paid"
    TRIAL = "trial"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class AddOnInForce:
    """`quantity` of one version of an add-on. `id` is its row's; another quantity later is another row."""

    id: str
    plan_version_id: str
    quantity: int


@dataclass(frozen=True, slots=True)
class TimelinePhase:
    """One plan version, one kind and the same add-ons for [starts_at, ends_at); None: no end is set.

    `charged_from` is where its share of the billing period's time begins. It is `starts_at`, but for the first
    paid phase that starts within the first hour of a billing period: that one has, and pays, the whole of it.
    """

    id: str
    plan_version_id: str
    kind: PhaseKind
    starts_at: datetime
    ends_at: datetime | None
    charged_from: datetime
    add_ons: tuple[AddOnInForce, ...] = ()

    @property
    def costs(self) -> bool:
        return self.kind is PhaseKind.PAID

    def within(self, period: BillingPeriod) -> Self | None:
        """Return the phase cut to a period, with an end; None where they have no moment in common."""
        starts_at, ends_at = max(self.starts_at, period.start), min(self.ends_at or period.end, period.end)
        if starts_at >= ends_at:
            return None
        # named one by one: closing does this by the hundred thousand, and `replace` takes five times as long
        return type(self)(
            id=self.id,
            plan_version_id=self.plan_version_id,
            kind=self.kind,
            starts_at=starts_at,
            ends_at=ends_at,
            charged_from=max(self.charged_from, period.start),
            add_ons=self.add_ons,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """A subscription with its phases, first to last, without gaps; planned ones are there too.

    `ends_at` may lie ahead. Billed periods begin at `anchor_at` (see foundation.period). `unused_time`: whether
    what was paid in advance for the time after an early end is `kept` or `credited`. `quota_override` is in force
    now; what a billing period is rated by is `own_quota_in`. `quota_cap_override`: where a quota that charges
    refuses, in place of the plan's cap.
    """

    subscription_id: str
    account_id: str
    api_product_id: str
    status: str
    anchor_at: datetime
    interval: str
    time_zone: str
    started_at: datetime
    ends_at: datetime | None
    trial_ends_at: datetime | None
    unused_time: str
    billed_by: str
    quota_override: int | None
    phases: tuple[TimelinePhase, ...]
    quota_cap_override: int | None = None
    earlier_quotas: tuple[EarlierQuota, ...] = ()

    def period_at(self, moment: datetime) -> BillingPeriod:
        """Return the whole billing period that holds a moment, also before the start or after the end."""
        return period_containing(moment, self.anchor_at, self.interval, self.time_zone)

    def phase_at(self, moment: datetime) -> TimelinePhase | None:
        """Return the phase that holds the moment, or None before the first and after the last."""
        for phase in self.phases:
            if phase.starts_at <= moment and (phase.ends_at is None or moment < phase.ends_at):
                return phase
        return None

    def phases_within(self, period: BillingPeriod) -> list[TimelinePhase]:
        """Return the phases that have a moment in the period, cut to it, in order."""
        return [part for phase in self.phases if (part := phase.within(period)) is not None]

    def own_quota_in(self, period: BillingPeriod) -> int | None:
        """Return the quota of its own that a billing period is, or was, rated by."""
        return own_quota_in(period, self.earlier_quotas, self.quota_override)

    @property
    def version_ids(self) -> set[str]:
        """The plan versions of all phases, those of add-ons among them."""
        add_ons = {add_on.plan_version_id for phase in self.phases for add_on in phase.add_ons}
        return {phase.plan_version_id for phase in self.phases} | add_ons


def charged_from(starts_at: datetime, *, anchor_at: datetime, first_paid: bool) -> datetime:
    """Return the moment from which a paid phase is charged.

    Periods begin at full hours: whoever starts to pay within the first hour of the first one has the whole of it.
    """
    return anchor_at if first_paid and floor_hour(starts_at) == anchor_at else starts_at
