"""Which plan or add-on version an account may be put on."""

from typing import Literal

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.tables import Account
from control_plane.catalog import queries as catalog
from control_plane.catalog.currencies import CurrencyDiffersError, currencies_of, is_sold_in
from control_plane.catalog.locks import kept_on_sale
from control_plane.catalog.tables import PlanVersion
from control_plane.foundation.errors import ConflictError, NotAllowedError
from control_plane.subscriptions.tables import Subscription


class PlanNotOnSaleError(ConflictError):
    """The plan or its API product is archived, or no version was ever published."""

    def __init__(self, plan_code: str) -> None:
        super().__init__("plan_not_on_sale", f"Plan {plan_code} is not on sale.")


class PlanUnlistedError(NotAllowedError):
    """The plan is hidden or sold by quote: only an administrator can put an account on it."""

    def __init__(self, plan_code: str) -> None:
        super().__init__("plan_unlisted", f"Plan {plan_code} is sold on request only.")


class PlanIsAddOnError(ConflictError):
    """An add-on is sold beside a plan, never in its place."""

    def __init__(self, plan_code: str) -> None:
        super().__init__(
            "plan_is_add_on", f"{plan_code} is an add-on: subscribe to a plan, and add it to the subscription."
        )


class NotAnAddOnError(ConflictError):
    """A plan cannot be sold beside another."""

    def __init__(self, plan_code: str) -> None:
        super().__init__("not_an_add_on", f"{plan_code} is a plan, not an add-on: change the plan instead.")


class ProductDiffersError(ConflictError):
    """The plan belongs to another API product than the subscription."""

    def __init__(self, plan_code: str, *, add_on: bool = False) -> None:
        what = f"Add-on {plan_code}" if add_on else f"Plan {plan_code}"
        instead = "add it to a subscription to that one" if add_on else "subscribe to it"
        super().__init__("product_differs", f"{what} belongs to another API product: {instead}.")


class IntervalDiffersError(ConflictError):
    """Monthly and yearly plans count periods differently; the change is a new subscription."""

    def __init__(self, plan_interval: str, interval: str, *, add_on: bool = False) -> None:
        what = "add-on" if add_on else "plan"
        instead = f"choose one by the {interval}"
        if not add_on:
            instead = "cancel at period end, or now with its unused time credited, and subscribe anew"
        super().__init__(
            "interval_differs",
            f"The {what} is billed by the {plan_interval}, the subscription by the {interval}: {instead}.",
        )


class BillingDiffersError(ConflictError):
    """One subscription has invoices of ours or of Stripe's, not both."""

    def __init__(self, code: str, billed_by: str, subscription_billed_by: str) -> None:
        words = {"own": "by invoices of our own", "stripe": "by Stripe"}
        super().__init__(
            "billing_differs",
            f"{code} is billed {words[billed_by]}, the subscription {words[subscription_billed_by]}: "
            + (
                "start a checkout for it; a subscription that costs nothing ends when that is completed."
                if billed_by == "stripe"
                else "cancel at period end and subscribe anew, or choose another."
            ),
        )


class BoughtAtStripeError(ConflictError):
    """A plan that Stripe bills is bought there: it begins when it is paid for, or its trial has begun."""

    def __init__(self, plan_code: str) -> None:
        super().__init__(
            "bought_at_stripe",
            f"Plan {plan_code} is billed by Stripe: start a checkout for the account instead "
            "(POST /accounts/{id}/checkouts, `km checkouts start`).",
        )


def require_own(version: PlanVersion) -> None:
    """Raise BoughtAtStripeError where nobody can be put on a version without a checkout."""
    if version.billed_by != "own":
        raise BoughtAtStripeError(version.plan.code)


async def offered_version(
    session: AsyncSession,
    plan_code: str,
    *,
    account: Account,
    allow_unlisted: bool,
    kind: Literal["plan", "add_on"] = "plan",
) -> PlanVersion:
    """Return the version of a plan (or add-on) that is on sale to an account, with plan, product and prices.

    Raises:
        NotFoundError, PlanIsAddOnError, NotAnAddOnError, PlanNotOnSaleError, PlanUnlistedError,
        CurrencyDiffersError.
    """
    version = await version_on_sale(session, plan_code, allow_unlisted=allow_unlisted, kind=kind)
    if not is_sold_in(version, account.currency):
        raise CurrencyDiffersError(plan_code, account.currency, currencies_of(version))
    return version


async def version_on_sale(
    session: AsyncSession,
    plan_code: str,
    *,
    allow_unlisted: bool,
    kind: Literal["plan", "add_on"] = "plan",
) -> PlanVersion:
    """Return the version of a plan (or add-on) that is on sale, with plan, product and prices, whoever asks.

    Until the transaction ends, plan and product are neither archived nor deleted.

    Raises:
        NotFoundError, PlanIsAddOnError, NotAnAddOnError, PlanNotOnSaleError, PlanUnlistedError.
    """
    plan = await kept_on_sale(session, plan_code)
    if plan.kind != kind:
        raise PlanIsAddOnError(plan_code) if kind == "plan" else NotAnAddOnError(plan_code)
    version = (await catalog.published_versions(session, [plan.id])).get(plan.id)
    if version is None or plan.archived_at is not None or plan.api_product.archived_at is not None:
        raise PlanNotOnSaleError(plan_code)
    if not allow_unlisted and (plan.visibility == "hidden" or version.by_quote):
        raise PlanUnlistedError(plan_code)
    return version


def require_change(subscription: Subscription, version: PlanVersion) -> None:
    """Raise where a subscription cannot move to a version: ProductDiffersError, IntervalDiffersError,
    BillingDiffersError.
    """
    if version.plan.api_product_id != subscription.api_product_id:
        raise ProductDiffersError(version.plan.code)
    if version.interval != subscription.interval:
        raise IntervalDiffersError(version.interval, subscription.interval)
    _require_billing(subscription, version)


def require_addition(subscription: Subscription, version: PlanVersion) -> None:
    """Raise where an add-on's version cannot stand beside the plan: ProductDiffersError, IntervalDiffersError,
    BillingDiffersError.
    """
    if version.plan.api_product_id != subscription.api_product_id:
        raise ProductDiffersError(version.plan.code, add_on=True)
    if version.interval != subscription.interval:
        raise IntervalDiffersError(version.interval, subscription.interval, add_on=True)
    _require_billing(subscription, version)


def _require_billing(subscription: Subscription, version: PlanVersion) -> None:
    if version.billed_by != subscription.billed_by:
        raise BillingDiffersError(version.plan.code, version.billed_by, subscription.billed_by)
