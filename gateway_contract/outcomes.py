"""What the gateway decided about a call. The words appear in receipts, events, rollups and problem bodies."""

from enum import StrEnum


class Outcome(StrEnum):
    """`served` went to the upstream; what was refused at the gateway is never billed.

    `reported` is no call: it has no call number and no quota units, and bills its dimensions and meters only.
    """

    SERVED = "served"
    # identified, but over a limit (429)
    RATE_LIMITED = "rate_limited"
    QUOTA_EXCEEDED = "quota_exceeded"
    SPEND_CAP_REACHED = "spend_cap_reached"
    # identified, but not allowed (401, 402, 403)
    KEY_REVOKED = "key_revoked"
    KEY_EXPIRED = "key_expired"
    ACCOUNT_SUSPENDED = "account_suspended"
    PAYMENT_REQUIRED = "payment_required"
    CREDITS_USED_UP = "credits_used_up"
    NOT_SUBSCRIBED = "not_subscribed"
    SUBSCRIPTION_PAUSED = "subscription_paused"
    SCOPE_MISSING = "scope_missing"
    IP_NOT_ALLOWED = "ip_not_allowed"
    NOT_ENTITLED = "not_entitled"
    NO_SANDBOX = "no_sandbox"
    # nobody was identified (401)
    NO_KEY = "no_key"
    MALFORMED_KEY = "malformed_key"
    UNKNOWN_KEY = "unknown_key"
    AMBIGUOUS_KEY = "ambiguous_key"
    # the gateway could not decide (503)
    UNAVAILABLE = "unavailable"
    # a line without a receipt and without a note: a call that no plugin of ours has seen, or a forged receipt
    UNATTRIBUTED = "unattributed"
    # no call: an application told of something it sells (a finished transaction, a generated page)
    REPORTED = "reported"


# What no call at the gateway ends with: nothing that it answers, and nothing that a receipt says.
NOT_DECIDED = frozenset({Outcome.UNATTRIBUTED, Outcome.REPORTED})

# Refusals that carry a note instead of a receipt, since they belong to no account.
UNIDENTIFIED = frozenset(
    {
        Outcome.NO_KEY,
        Outcome.MALFORMED_KEY,
        Outcome.UNKNOWN_KEY,
        Outcome.AMBIGUOUS_KEY,
        Outcome.UNAVAILABLE,
    },
)
