"""Why a row of usage is where it is: stable words, kept in the row and shown to operators."""

from enum import StrEnum


class Reason(StrEnum):
    """The second word of a row's state; '' where there is nothing to add."""

    NONE = ""
    # waiting
    NO_SUBSCRIPTION = "no_stripe_subscription"
    NOT_PUSHED = "price_not_pushed"
    EARLIER_ROW = "earlier_row_undecided"
    AHEAD = "ahead_of_clock"
    UNAVAILABLE = "stripe_unavailable"
    RETRIED = "retried"
    # sent
    UNKNOWN = "outcome_unknown"
    UNCLEAR = "summary_unclear"
    MAYBE_REFUSED = "maybe_refused"
    # ours, too old
    NOT_NATIVE = "not_native"
    INVOICE_FINAL = "invoice_final"
    PLAN_CHANGED = "plan_changed"
    TAKES_MORE = "takes_more_than_delivered"
    TOO_LARGE = "too_large"
    NEGATIVE_REFUSED = "negative_refused"
    TOO_OLD = "too_old"
    # cancelled
    NEVER_SENT = "never_sent"
    TAKEN_BACK = "taken_back"
    # refused
    REFUSED = "refused"
    # delivered
    ALREADY_THERE = "already_there"
    SEEN_IN_SUMMARY = "seen_in_summary"
    BY_HAND = "by_hand"
