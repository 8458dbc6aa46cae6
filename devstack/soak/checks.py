"""All checks of a soak, in the order in which they are reported."""

from collections.abc import Callable

from devstack.soak import call_checks, cap_checks, figure_checks, key_checks, limit_checks, replay_checks
from devstack.soak.evidence import Check, Evidence

CHECKS: tuple[Callable[[Evidence], Check], ...] = (
    call_checks.nothing_lost,
    call_checks.missed_by_the_meter,
    call_checks.nothing_doubled,
    call_checks.stored_as_seen,
    call_checks.decided,
    call_checks.arrived_and_stored,
    limit_checks.windows_of_closed_plans,
    limit_checks.closed_means_closed,
    limit_checks.windows_of_open_plans,
    limit_checks.hard_quotas,
    cap_checks.spend_caps,
    cap_checks.calls_at_once,
    key_checks.nobody_served,
    key_checks.revoked_keys,
    key_checks.expired_keys,
    key_checks.no_key_readable,
    figure_checks.rollups_agree,
    figure_checks.invoices_agree,
    replay_checks.replays_known,
    replay_checks.billed_once,
    figure_checks.settled,
    figure_checks.recovered,
)


def all_checks(evidence: Evidence) -> list[Check]:
    return [check(evidence) for check in CHECKS]
