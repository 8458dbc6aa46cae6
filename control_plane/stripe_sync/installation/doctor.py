"""`km stripe doctor`: whether this installation can do at Stripe what it has to. Reads only.

What Stripe does not tell (grace, retries, what a key may write) it says as advice.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from control_plane.stripe_sync.client import StripeKeyRefused, StripeRefused, StripeUnavailable
from control_plane.stripe_sync.installation import account_checks, hook_checks, plan_checks
from control_plane.stripe_sync.installation.findings import Finding, problem
from control_plane.stripe_sync.model import StripeContext

Check = Callable[[StripeContext], Awaitable[list[Finding]]]
ACCOUNT: Final = "account"
CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("key", account_checks.check_key),
    (ACCOUNT, account_checks.check_account),
    ("clock", account_checks.check_clock),
    ("permissions", account_checks.check_permissions),
    ("webhooks", hook_checks.check_webhooks),
    ("usage errors", hook_checks.check_thin_events),
    ("portal", hook_checks.check_portal),
    ("plans", plan_checks.check_plans),
    ("taxes", account_checks.check_taxes),
    ("settings", hook_checks.check_settings_at_stripe),
)


async def examine(context: StripeContext) -> list[Finding]:
    """Look at everything, in an order in which a later finding may follow from an earlier one."""
    found: list[Finding] = []
    for about, check in CHECKS:
        try:
            found += await check(context)
        except StripeKeyRefused as refused:
            found.append(problem(about, refused.sentence))
            if refused.is_unknown:
                break  # all the rest would say the same
        except StripeUnavailable as unavailable:
            found.append(problem(about, f"cannot be looked at: {unavailable.sentence}"))
            if about == ACCOUNT:
                break  # the rest would take a timeout each, to say the same
        except StripeRefused as refused:
            found.append(problem(about, f"cannot be looked at: {refused.message}"))
    return found
