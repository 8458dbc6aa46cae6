"""The first purchase, at Stripe's Checkout: started here, paid there, begun here when Stripe shows it paid."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from control_plane.catalog.queries import plan_versions
from control_plane.foundation.errors import ConflictError, ValidationFailedError
from control_plane.stripe_sync.client import StripeRefused, StripeUnavailable, options
from control_plane.stripe_sync.effects import Effect, NotYetError, mark_handled
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.subscriptions.applying import apply_subscription, lock_object
from control_plane.stripe_sync.subscriptions.checkout_rows import (
    checkout_by_id,
    checkout_key,
    checkout_row,
    close,
    is_same,
    locked_account,
    open_checkout,
    record,
    session_params,
)
from control_plane.stripe_sync.subscriptions.checkout_terms import LIFETIME, purchase
from control_plane.stripe_sync.subscriptions.coupons import ensure_coupon
from control_plane.stripe_sync.subscriptions.customers import ensure_customer
from control_plane.stripe_sync.subscriptions.model import PriceAtStripe
from control_plane.stripe_sync.subscriptions.reading import id_of
from control_plane.stripe_sync.subscriptions.tables import OPEN_CHECKOUT_STATES, StripeCheckout

MAX_URL: Final = 2000


@dataclass(frozen=True, slots=True)
class StartedCheckout:
    """An open checkout and where the customer pays. The URL lets whoever has it pay: it is kept nowhere."""

    checkout: StripeCheckout
    url: str


class CheckoutCompletedError(ConflictError):
    """Somebody has paid in the meantime."""

    def __init__(self, checkout_id: str) -> None:
        super().__init__("checkout_completed", f"Checkout {checkout_id} has been completed.")


class CheckoutReplacedError(ConflictError):
    """Another one was started at the same time."""

    def __init__(self, checkout_id: str) -> None:
        super().__init__(
            "checkout_replaced",
            f"Checkout {checkout_id} was closed while it was being opened: another was started. Start again.",
        )


async def start_checkout(
    ctx: StripeContext,
    *,
    account_id: str,
    plan_code: str,
    success_url: str,
    cancel_url: str,
    trial: bool | None = None,
    promotion_code: str | None = None,
    allow_unlisted: bool = False,
    actor: str,
) -> StartedCheckout:
    """Open a checkout for a plan, for two hours; commits.

    One is open for an account and API product: on the same terms again it is the same one, on others the former is
    closed first. The subscription begins when Stripe shows it paid for, or its trial begun (`apply_checkout`).

    Raises:
        NotFoundError, AccountDeletedError, CheckoutCompletedError, CheckoutReplacedError; see
        `checkout_terms.purchase` for refusals. ValidationFailedError: a URL. StripeRefused.
        StripeUnavailable: ask again, and the same checkout goes on.
    """
    for field, url in (("success_url", success_url), ("cancel_url", cancel_url)):
        if not url.startswith(("https://", "http://")) or len(url) > MAX_URL or not url.isprintable():
            raise ValidationFailedError(field, "must be an http or https URL")
    urls = success_url, cancel_url
    while True:
        async with ctx.sessions() as session, session.begin():
            account = await locked_account(session, account_id)
            bought = await purchase(
                session,
                account,
                plan_code=plan_code,
                trial=trial,
                promotion_code=promotion_code,
                allow_unlisted=allow_unlisted,
                now=ctx.now,
            )
            former = await open_checkout(session, account_id, bought.version.plan.api_product_id)
            if former is None:
                checkout = checkout_row(account, bought, urls, actor=actor, now=ctx.now)
                session.add(checkout)
                await session.flush()
                await record(session, checkout, "stripe_checkout.wanted", actor=actor, now=ctx.now)
                break
            if is_same(former, bought, urls) and former.expires_at - ctx.now > LIFETIME / 4:
                checkout = former
                break
        await close_checkout(ctx, checkout_id=former.id, actor=actor)
    return await _open(ctx, checkout, bought.prices)


async def close_checkout(ctx: StripeContext, *, checkout_id: str, actor: str) -> StripeCheckout:
    """Close a checkout that nobody has completed, so that nobody can; commits. Closed already: nothing changes.

    Raises:
        NotFoundError, CheckoutCompletedError, StripeRefused, StripeUnavailable.
    """
    expired: str | None = None
    while True:
        async with ctx.sessions() as session, session.begin():
            checkout = await checkout_by_id(session, checkout_id, locked=True)
            if checkout.state == "completed":
                raise CheckoutCompletedError(checkout_id)
            session_id = checkout.session_id if checkout.state == "open" else None
            if session_id is None or session_id == expired:
                if checkout.state in OPEN_CHECKOUT_STATES:
                    close(checkout, "expired", now=ctx.now)
                    await record(session, checkout, "stripe_checkout.closed", actor=actor, now=ctx.now)
                return checkout
        await _expire(ctx, checkout, session_id)
        expired = session_id


async def _expire(ctx: StripeContext, checkout: StripeCheckout, session_id: str) -> None:
    """Have nobody pay any more; where Stripe says that this is over, what has come of it is read."""
    key = options(f"{checkout_key(ctx, checkout)}:close:{session_id}")
    try:
        await ctx.stripe.call(lambda c: c.v1.checkout.sessions.expire_async(session_id, None, key))
    except StripeRefused as error:
        # one that Stripe does not know, or no longer, can be paid by nobody
        if not error.is_missing:
            await apply_checkout(ctx, session_id)


async def refuse_paid(ctx: StripeContext, checkout_id: str, error: ConflictError) -> None:
    """Note that a checkout was paid, and that what it bought cannot begin (yet); commits."""
    async with ctx.sessions() as session, session.begin():
        checkout = await checkout_by_id(session, checkout_id, locked=True)
        if checkout.state in OPEN_CHECKOUT_STATES:
            close(checkout, "refused", now=ctx.now)
            checkout.problem_code, checkout.problem = error.code, error.message
            await record(session, checkout, "stripe_checkout.refused", actor="stripe", now=ctx.now)


async def apply_checkout(ctx: StripeContext, session_id: str) -> Effect | None:
    """Read a checkout session, and with it the subscription that it made, if it was completed.

    Raises:
        NotYetError: it bears our mark, but we do not know it. StripeRefused, StripeUnavailable.
    """
    found = await ctx.stripe.call(lambda c: c.v1.checkout.sessions.retrieve_async(session_id))
    told = {} if found.metadata is None else found.metadata.to_dict()
    if told.get("km_installation") != ctx.config.installation:
        return Effect.NOT_OURS
    stripe_id = id_of(found.subscription)
    async with ctx.sessions() as session, session.begin():
        await lock_object(session, session_id)
        checkout = await session.get(
            StripeCheckout, told.get("km_object", ""), with_for_update=True, populate_existing=True
        )
        if checkout is None:
            raise NotYetError(f"checkout {told.get('km_object')} of session {session_id} is not known")
        checkout.session_id, checkout.read_at = session_id, ctx.now
        if found.status == "expired" and checkout.state in OPEN_CHECKOUT_STATES:
            close(checkout, "expired", now=ctx.now)
        elif found.status == "open" and checkout.state == "wanted":
            checkout.state = "open"
        if stripe_id is None or checkout.state == "completed":
            await mark_handled(session)
    if stripe_id is not None:
        return await apply_subscription(ctx, stripe_id)
    return None


async def _open(ctx: StripeContext, checkout: StripeCheckout, prices: Sequence[PriceAtStripe]) -> StartedCheckout:
    if checkout.state == "open" and checkout.session_id is not None:
        session_id = checkout.session_id
        found = await ctx.stripe.call(lambda c: c.v1.checkout.sessions.retrieve_async(session_id))
        if found.url is not None:
            return StartedCheckout(checkout, found.url)
        await apply_checkout(ctx, session_id)
        raise CheckoutCompletedError(checkout.id)
    try:
        customer_id = await ensure_customer(ctx, checkout.account_id)
        params = session_params(ctx, checkout, prices, customer_id, await _coupon(ctx, checkout))
        key = options(f"{checkout_key(ctx, checkout)}:{checkout.attempt}")
        made = await ctx.stripe.call(lambda c: c.v1.checkout.sessions.create_async(params, key))
    except StripeRefused as error:
        await _note(ctx, checkout, state="refused", problem=(error.stripe_code or error.code, error.message))
        raise
    except StripeUnavailable as error:
        if error.spent_key:
            await _note(ctx, checkout, attempt=checkout.attempt + 1)
        raise
    checkout = await _note(ctx, checkout, state="open", session_id=made.id)
    if checkout.state != "open":
        # closed while Stripe made it, for one on other terms: nobody is told where this one is paid
        await _expire(ctx, checkout, made.id)
        raise CheckoutReplacedError(checkout.id)
    return StartedCheckout(checkout, made.url or "")


async def _coupon(ctx: StripeContext, checkout: StripeCheckout) -> str | None:
    if checkout.coupon_id is None:
        return None
    async with ctx.sessions() as session:
        version = (await plan_versions(session, [checkout.plan_version_id]))[checkout.plan_version_id]
    return await ensure_coupon(ctx, checkout.coupon_id, interval=version.interval)


async def _note(
    ctx: StripeContext,
    checkout: StripeCheckout,
    *,
    state: Literal["open", "refused"] | None = None,
    session_id: str | None = None,
    attempt: int | None = None,
    problem: tuple[str, str] = ("", ""),
) -> StripeCheckout:
    async with ctx.sessions() as session, session.begin():
        row = await checkout_by_id(session, checkout.id, locked=True)
        row.session_id = session_id or row.session_id
        row.attempt = attempt or row.attempt
        if row.state == "wanted" and state == "refused":
            close(row, "refused", now=ctx.now)
            row.problem_code, row.problem = problem
        elif row.state == "wanted" and state is not None:
            row.state = state
    return row
