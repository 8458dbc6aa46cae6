"""Stripe's customer portal: cards, invoices, addresses. Its URL is for whoever asked, and kept nowhere."""

from typing import Any, Literal

from control_plane.foundation.errors import ConflictError, ValidationFailedError
from control_plane.foundation.ids import new_id
from control_plane.stripe_sync.catalog.tables import StripeSetup
from control_plane.stripe_sync.client import options
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.subscriptions.customers import customer_of, tell_customer


class NoCustomerError(ConflictError):
    """The account has bought nothing at Stripe."""

    def __init__(self, account_id: str) -> None:
        super().__init__(
            "no_stripe_customer", f"Account {account_id} has bought nothing at Stripe yet: start a checkout first."
        )


async def portal_url(
    ctx: StripeContext,
    *,
    account_id: str,
    return_url: str,
    flow: Literal["payment_method_update"] | None = None,
) -> str:
    """Return where an account's customer manages cards, invoices and addresses; good for minutes, for one visitor.

    `flow`: go straight to giving another card.

    Raises:
        NoCustomerError, StripeRefused, StripeUnavailable. ValidationFailedError: `return_url`.
    """
    if not return_url.startswith(("https://", "http://")) or not return_url.isprintable():
        raise ValidationFailedError("return_url", "must be an http or https URL")
    async with ctx.sessions() as session:
        customer = await customer_of(session, account_id)
        setup = await session.get(StripeSetup, ctx.config.installation)
    if customer is None or customer.customer_id is None:
        raise NoCustomerError(account_id)
    await tell_customer(ctx, account_id)
    params: dict[str, Any] = {"customer": customer.customer_id, "return_url": return_url}
    if setup is not None and setup.portal_configuration_id is not None:
        params["configuration"] = setup.portal_configuration_id
    if flow is not None:
        params["flow_data"] = {"type": flow}
    asked: Any = params
    key = options(f"km:{ctx.config.installation}:portal:{new_id('por', ctx.now)}")
    made = await ctx.stripe.call(lambda c: c.v1.billing_portal.sessions.create_async(asked, key))
    return made.url
