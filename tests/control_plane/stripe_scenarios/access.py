"""Whose Stripe the stories run against: without `KM_TEST_STRIPE_KEY` our own simulator's."""

from collections.abc import Mapping
from dataclasses import dataclass, field

KEY = "KM_TEST_STRIPE_KEY"
BASE = "KM_TEST_STRIPE_BASE"
MINUTES = "KM_TEST_STRIPE_MINUTES"
LIVE = ("sk_live_", "rk_live_")
TEST = ("sk_test_", "rk_test_")
LOCAL = ("http://127.0.0.1:", "http://localhost:")
USUAL_MINUTES = 30.0


class WrongAccessError(Exception):
    """The environment asks for something that tests do not do. Nothing has been sent."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """`base` '' is Stripe itself; else something on this machine that speaks its API."""

    key: str = field(repr=False)
    base: str = ""
    minutes: float = USUAL_MINUTES

    @property
    def is_stripe(self) -> bool:
        return not self.base


def access_of(environment: Mapping[str, str]) -> Access | None:
    """Return what the environment asks for; None is the simulator.

    Raises:
        WrongAccessError: a live key, no key of Stripe's, or a base that is elsewhere.
    """
    key, base = environment.get(KEY, "").strip(), environment.get(BASE, "").strip()
    if key.startswith(LIVE):
        raise WrongAccessError(
            f"{KEY} is a live key: it moves real money, so tests refuse it. Nothing was sent. Give a key of a "
            "sandbox (sk_test_... or rk_test_...)."
        )
    if key and not key.startswith(TEST):
        raise WrongAccessError(f"{KEY} is no test key of Stripe's: sk_test_... or rk_test_... Nothing was sent.")
    if base and not (key and base.startswith(LOCAL)):
        raise WrongAccessError(f"{BASE} is for a simulator on this machine (http://127.0.0.1:PORT), with {KEY}.")
    try:
        minutes = float(environment.get(MINUTES) or USUAL_MINUTES)
    except ValueError:
        raise WrongAccessError(f"{MINUTES} is how many minutes a story may take, such as 45.") from None
    return Access(key=key, base=base.rstrip("/"), minutes=minutes) if key else None
