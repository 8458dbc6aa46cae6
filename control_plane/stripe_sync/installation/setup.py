"""`km stripe setup`: makes what an installation needs at Stripe, or finds it and puts it right.

Stripe tells a signing secret once, when an endpoint is made. It goes to whoever asked and is kept nowhere here.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import stripe as sdk
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.audit import record_change
from control_plane.stripe_sync.account import require_account
from control_plane.stripe_sync.catalog.tables import StripeSetup
from control_plane.stripe_sync.client import API_VERSION, StripeRefused, StripeUnavailable, options
from control_plane.stripe_sync.installation import finding
from control_plane.stripe_sync.installation.wanted import (
    DESCRIPTION,
    Hook,
    check_base_url,
    portal_features,
    snapshot_hook,
    thin_hook,
)
from control_plane.stripe_sync.model import StripeContext

Action = Literal["made", "changed", "as it was", "failed"]
ENDPOINT, THIN, PORTAL = "webhook endpoint", "thin event destination", "portal configuration"
NOTHING: Final[tuple[str, ...]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUpThing:
    """What came of one thing. `secret`: told by Stripe this once, None where it was there before.

    `stripe_id` is None where it failed; `because` says why.
    """

    thing: str
    stripe_id: str | None
    action: Action
    url: str = ""
    because: tuple[str, ...] = ()
    secret: str | None = None


async def set_up(context: StripeContext, *, base_url: str, new_secrets: bool, actor: str) -> list[SetUpThing]:
    """Make or put right webhooks and portal; idempotent. `base_url` is where Stripe reaches this server.

    `new_secrets`: the webhooks are made anew, and the former ones deleted when the new ones are there. What fails
    does not keep the rest from being done, and from telling its secret: it can be set up again.

    Raises:
        ValidationFailedError, AccountDiffersError, StripeRefused, StripeUnavailable.
    """
    base_url = check_base_url(base_url, live=context.config.is_live)
    await require_account(context)
    things = [
        await _tried(PORTAL, _portal(context)),
        await _tried(ENDPOINT, _endpoint(context, snapshot_hook(base_url), new_secret=new_secrets)),
        await _tried(THIN, _destination(context, thin_hook(base_url), new_secret=new_secrets)),
    ]
    async with context.sessions() as session, session.begin():
        await _note(session, context, things, actor=actor)
    return things


async def _tried(thing: str, doing: Awaitable[SetUpThing]) -> SetUpThing:
    try:
        return await doing
    except (StripeRefused, StripeUnavailable) as failed:
        return _thing(thing, None, "failed", because=(failed.message,))


async def _endpoint(context: StripeContext, wanted: Hook, *, new_secret: bool) -> SetUpThing:
    found = await finding.webhook_endpoints(context.stripe)
    keep = None if new_secret else next((one for one in found if one.api_version == API_VERSION), None)
    if keep is None:
        made = await context.stripe.call(
            lambda c: c.v1.webhook_endpoints.create_async(
                {
                    "url": wanted.url,
                    "enabled_events": _event_names(wanted),
                    "api_version": API_VERSION,
                    "description": DESCRIPTION,
                    "metadata": context.config.metadata,
                },
                options(_key(context, "webhook_endpoint")),
            )
        )
        because = (f"The former one sent API version {found[0].api_version}.",) if found else NOTHING
        if new_secret:
            because = ("Its secret was to be new.",)
        left = [await _deleted(context, _delete_endpoint, former.id) for former in found]
        because += tuple(filter(None, left))
        return _thing(ENDPOINT, made.id, "made", url=wanted.url, because=because, secret=made.secret)
    differences = _endpoint_differences(keep, wanted)
    if differences:
        kept_id = keep.id
        await context.stripe.call(
            lambda c: c.v1.webhook_endpoints.update_async(
                kept_id,
                {"url": wanted.url, "enabled_events": _event_names(wanted), "disabled": False},
                options(_key(context, "webhook_endpoint")),
            )
        )
    return _thing(
        ENDPOINT, keep.id, "changed" if differences else "as it was", url=wanted.url, because=differences
    )


def _event_names(wanted: Hook) -> Any:
    """Return the events; that each is one of Stripe's is tested."""
    return list(wanted.events)


def _endpoint_differences(there: sdk.WebhookEndpoint, wanted: Hook) -> tuple[str, ...]:
    return _differences(url=there.url, events=there.enabled_events, is_on=there.status == "enabled", wanted=wanted)


def _differences(*, url: str, events: list[str], is_on: bool, wanted: Hook) -> tuple[str, ...]:
    found = []
    if url != wanted.url:
        found.append(f"It sent to {url or 'nowhere'}.")
    if missing := wanted.missing(events):
        found.append(f"It lacked {', '.join(missing)}.")
    if more := sorted(set(events) - set(wanted.events)):
        found.append(f"It had {', '.join(more)} more.")
    if not is_on:
        found.append("It was disabled.")
    return tuple(found)


async def _deleted(
    context: StripeContext, delete: Callable[[StripeContext, str], Awaitable[object]], former_id: str
) -> str:
    """Delete a former webhook; returns what went wrong, for the new one's secret has to be told all the same."""
    try:
        await delete(context, former_id)
    except (StripeRefused, StripeUnavailable) as failed:
        return f"The former one, {former_id}, is still there ({failed.message}): delete it at Stripe."
    return ""


async def _delete_endpoint(context: StripeContext, former_id: str) -> object:
    return await context.stripe.call(lambda c: c.v1.webhook_endpoints.delete_async(former_id))


async def _delete_destination(context: StripeContext, former_id: str) -> object:
    return await context.stripe.call(lambda c: c.v2.core.event_destinations.delete_async(former_id))


async def _destination(context: StripeContext, wanted: Hook, *, new_secret: bool) -> SetUpThing:
    found = await finding.thin_destinations(context.stripe)
    if new_secret or not found:
        made = await context.stripe.call(
            lambda c: c.v2.core.event_destinations.create_async(
                {
                    "name": f"kong-monetize {context.config.installation}: usage errors",
                    "description": DESCRIPTION,
                    "type": "webhook_endpoint",
                    "event_payload": "thin",
                    "enabled_events": list(wanted.events),
                    "webhook_endpoint": {"url": wanted.url},
                    "metadata": context.config.metadata,
                    "include": ["webhook_endpoint.signing_secret", "webhook_endpoint.url"],
                },
                options(_key(context, "thin_destination")),
            )
        )
        because = ("Its secret was to be new.",) if new_secret else NOTHING
        left = [await _deleted(context, _delete_destination, former.id) for former in found]
        because += tuple(filter(None, left))
        secret = made.webhook_endpoint.signing_secret if made.webhook_endpoint else None
        return _thing(THIN, made.id, "made", url=wanted.url, because=because, secret=secret)
    keep = found[0]
    differences = _differences(
        url=finding.url_of(keep), events=keep.enabled_events, is_on=keep.status == "enabled", wanted=wanted
    )
    if differences:
        await _change_destination(context, keep, wanted)
    return _thing(THIN, keep.id, "changed" if differences else "as it was", url=wanted.url, because=differences)


async def _change_destination(context: StripeContext, there: sdk.v2.core.EventDestination, wanted: Hook) -> None:
    key = _key(context, "thin_destination")
    await context.stripe.call(
        lambda c: c.v2.core.event_destinations.update_async(
            there.id,
            {"enabled_events": list(wanted.events), "webhook_endpoint": {"url": wanted.url}},
            options(key),
        )
    )
    if there.status != "enabled":
        enable = options(f"{key}:enable")
        await context.stripe.call(lambda c: c.v2.core.event_destinations.enable_async(there.id, {}, enable))


async def _portal(context: StripeContext) -> SetUpThing:
    found = await finding.portal_configurations(context.stripe)
    key = options(_key(context, "portal"))
    if not found:
        made = await context.stripe.call(
            lambda c: c.v1.billing_portal.configurations.create_async(
                {
                    "name": f"kong-monetize {context.config.installation}",
                    "features": portal_features(),
                    "metadata": context.config.metadata,
                },
                key,
            )
        )
        return _thing(PORTAL, made.id, "made")
    keep = found[0]
    differences = tuple(portal_differences(keep))
    if differences:
        await context.stripe.call(
            lambda c: c.v1.billing_portal.configurations.update_async(
                keep.id, {"features": cast("Any", portal_features())}, key
            )
        )
    return _thing(PORTAL, keep.id, "changed" if differences else "as it was", because=differences)


def portal_differences(there: sdk.billing_portal.Configuration) -> list[str]:
    """Return what a portal lets customers do otherwise than wanted, as sentences."""
    features = there.features
    found = []
    if not features.payment_method_update.enabled:
        found.append("Customers could not change their cards.")
    if not features.invoice_history.enabled:
        found.append("Customers could not see their invoices.")
    if not features.customer_update.enabled:
        found.append("Customers could not change their address.")
    if not features.subscription_cancel.enabled or features.subscription_cancel.mode != "at_period_end":
        found.append("Customers could not cancel at the period's end.")
    if features.subscription_update.enabled:
        found.append("Customers could change plans at Stripe, which leaves their usage prices behind.")
    return found


async def _note(session: AsyncSession, context: StripeContext, things: list[SetUpThing], *, actor: str) -> None:
    kept = await session.get_one(StripeSetup, context.config.installation, with_for_update=True)
    ids = {thing.thing: thing.stripe_id for thing in things}
    kept.webhook_endpoint_id = ids[ENDPOINT] or kept.webhook_endpoint_id
    kept.thin_destination_id = ids[THIN] or kept.thin_destination_id
    kept.portal_configuration_id = ids[PORTAL] or kept.portal_configuration_id
    kept.updated_at = context.now
    await record_change(
        session,
        actor=actor,
        action="stripe.set_up",
        entity_type="stripe_setup",
        entity_id=kept.installation,
        before=None,
        after={thing.thing: {"id": thing.stripe_id, "action": thing.action, "url": thing.url} for thing in things},
        now=context.now,
    )


def _thing(
    thing: str,
    stripe_id: str | None,
    action: Action,
    *,
    url: str = "",
    because: tuple[str, ...] = (),
    secret: str | None = None,
) -> SetUpThing:
    return SetUpThing(thing=thing, stripe_id=stripe_id, action=action, url=url, because=because, secret=secret)


def _key(context: StripeContext, kind: str) -> str:
    """Every run has keys of its own: what it needs it has just read."""
    return f"km:{context.config.installation}:{kind}:setup:{int(context.now.timestamp() * 1000)}"
