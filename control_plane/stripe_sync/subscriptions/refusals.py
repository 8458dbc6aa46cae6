"""Why something is not asked of Stripe. Each is a sentence for whoever asked."""

from datetime import datetime

from control_plane.foundation.errors import ConflictError


class NotBilledByStripeError(ConflictError):
    """The plan, or the subscription, has invoices of our own."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__("not_billed_by_stripe", f"{what} is billed by invoices of our own: {instead}.")


class PlanNotAtStripeError(ConflictError):
    """The plan's products and prices are not at Stripe."""

    def __init__(self, plan_code: str, problem: str | None) -> None:
        why = (
            f"Stripe does not take it: {problem}" if problem else "try again in a moment, or run `km stripe sync`"
        )
        super().__init__("plan_not_at_stripe", f"Plan {plan_code} is not at Stripe yet: {why}.")


class HeldAlreadyError(ConflictError):
    """The account has a subscription to the API product, and pays for it."""

    def __init__(self, subscription_id: str, product_code: str, *, at_stripe: bool) -> None:
        instead = (
            "change its plan instead"
            if at_stripe
            else "it is billed by invoices of our own: cancel it now with its unused time credited, and buy then"
        )
        super().__init__(
            "already_subscribed",
            f"The account already has subscription {subscription_id} to {product_code}; {instead}.",
        )


class OneDiscountError(ConflictError):
    """Stripe's Checkout takes one discount."""

    def __init__(self, code: str) -> None:
        super().__init__(
            "one_discount_at_checkout",
            "A checkout takes one discount, and this account's is the founding member's: buy without code "
            f"{code}, and redeem it on the subscription afterwards.",
        )


class ChangeInProgressError(ConflictError):
    """Another change of the subscription is not through at Stripe."""

    def __init__(self, change_id: str, *, waits_until: datetime | None) -> None:
        what = "is on its way to Stripe: try again in a moment"
        if waits_until is not None:
            what = f"waits for its payment until {waits_until:%Y-%m-%d %H:%M} UTC: pay its invoice, or discard it"
        super().__init__("change_in_progress", f"Change {change_id} of this subscription {what}.")


class NotAtStripeError(ConflictError):
    """Stripe has nothing like it."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__("not_at_stripe", f"{what}: {instead}.")
