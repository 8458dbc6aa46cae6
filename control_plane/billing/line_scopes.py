"""Which lines of an invoice a discount or a tax rate is for. Pure."""

from enum import StrEnum

FIXED_KINDS = frozenset({"recurring", "setup_fee"})
# a commitment stands in for usage that was not made: who uses less must not pay more than who uses all of it
USAGE_KINDS = frozenset({"usage", "commitment"})
PLAN_KINDS = FIXED_KINDS | USAGE_KINDS


class LineScope(StrEnum):
    """`fixed`: what is charged per period and setup fees; `usage`: what is charged by use, and commitments."""

    ALL = "all"
    FIXED = "fixed"
    USAGE = "usage"


def kinds_of(scope: LineScope) -> frozenset[str]:
    """Return the kinds of plans' and add-ons' lines in a scope; what people add by hand is in none of them."""
    return {LineScope.ALL: PLAN_KINDS, LineScope.FIXED: FIXED_KINDS, LineScope.USAGE: USAGE_KINDS}[scope]
