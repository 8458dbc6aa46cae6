"""How much plans allow, so that they can be compared. Pure."""

from gateway_contract.records import Window

UNLIMITED = float("inf")


def plan_size(*, quota_units: int | None, windows: tuple[Window, ...], by_quote: bool) -> tuple[float, float]:
    """Return what a plan allows of quota and of rate; one sold by quote is as large as anybody needs."""
    if by_quote:
        return UNLIMITED, UNLIMITED
    return quota_size(quota_units), rate_per_ms(windows)


def is_larger(size: tuple[float, float], *, than: tuple[float, float]) -> bool:
    """Say whether a plan allows more of quota or rate than another, and no less of either."""
    return size[0] >= than[0] and size[1] >= than[1] and size != than


def quota_size(units: int | None) -> float:
    """Return the quota as a measure; none is without end."""
    return UNLIMITED if units is None else units


def rate_per_ms(windows: tuple[Window, ...]) -> float:
    """Return the calls a ms that the tightest window sustains: a common measure of unlike windows."""
    return min((window.limit / window.window_ms for window in windows), default=UNLIMITED)
