"""Limits of Stripe's: calls in a second, and one meter event at a time for a customer and meter."""

import time

from devstack.stripe.problems import StripeProblem


class Limits:
    """In real time, since callers pace themselves in it."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._at = 0.0
        self._lanes: set[str] = set()

    def take(self, per_second: int) -> None:
        """A call; raises StripeProblem 429 above `per_second` (0: no limit)."""
        if per_second <= 0:
            return
        now = time.monotonic()
        if self._at == 0.0:
            self._tokens = float(per_second)
        self._tokens = min(per_second, self._tokens + (now - self._at) * per_second)
        self._at = now
        if self._tokens < 1:
            raise rate_limited("global-rate")
        self._tokens -= 1

    def enter(self, lane: str) -> None:
        """Raises StripeProblem 429 while another call is in this lane."""
        if lane in self._lanes:
            raise lock_timeout("resource-specific")
        self._lanes.add(lane)

    def leave(self, lane: str) -> None:
        self._lanes.discard(lane)


def rate_limited(reason: str) -> StripeProblem:
    """Of the kind that the SDK does not repeat by itself."""
    return StripeProblem(
        "Request rate limit exceeded. Learn more about rate limits here https://stripe.com/docs/rate-limits.",
        status=429,
        code="rate_limit",
        headers={"Stripe-Rate-Limited-Reason": reason},
    )


def lock_timeout(reason: str) -> StripeProblem:
    """Of the kind that says it may be repeated."""
    return StripeProblem(
        "This object cannot be accessed right now because another API request or Stripe process is currently "
        "accessing it. If you see this error intermittently, retry the request.",
        status=429,
        code="lock_timeout",
        should_retry=True,
        headers={"Stripe-Rate-Limited-Reason": reason},
    )
