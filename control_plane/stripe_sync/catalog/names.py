"""What our objects are called at Stripe: the same name each time, another for each thing. Pure."""

from hashlib import sha256
from typing import Final

MAX_EVENT_NAME: Final = 100
_DIGEST_DIGITS: Final = 12


def product_id(installation: str, plan_id: str) -> str:
    return f"km_{installation}_{plan_id}"


def lookup_key(installation: str, plan_code: str, version: int, position: int, currency: str) -> str:
    """Return a price's lookup key; codes and installations hold no colon, so no two are alike."""
    return f"km:{installation}:{plan_code}:{version}:{position}:{currency}"


def meter_event_name(installation: str, product_code: str, meter_code: str) -> str:
    """Return `km_{installation}_{API product}_{meter}`, the underscores of codes doubled.

    So there is one way to read it: codes begin with a letter. What would be longer than Stripe allows ends in a
    digest.
    """
    name = "_".join(("km", installation, product_code.replace("_", "__"), meter_code.replace("_", "__")))
    if len(name) <= MAX_EVENT_NAME:
        return name
    digest = sha256(name.encode()).hexdigest()[:_DIGEST_DIGITS]
    return f"{name[: MAX_EVENT_NAME - _DIGEST_DIGITS - 1]}-{digest}"
