"""Stripe for routes that ask it, or 409 `stripe_off` where this installation does not use it."""

from typing import Annotated

from fastapi import Depends

from control_plane.admin_api.services import Given, Now
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.outcomes import StripeOffError


def _stripe(services: Given, now: Now) -> StripeContext:
    """Return what deals with Stripe, for the moment of the request.

    Raises:
        StripeOffError: there is no key.
    """
    if services.stripe is None:
        raise StripeOffError
    return services.stripe.at(now)


StripeGiven = Annotated[StripeContext, Depends(_stripe)]
