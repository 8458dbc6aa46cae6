"""Rows of sealed usage on their way to Stripe, and what Stripe said later of those it would not count."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base

UNSETTLED = "state IN ('waiting', 'sent')"


class StripeUsageRow(Base):
    """What becomes of one row of the ledger of sealed usage. Its key is the ledger's.

    A trigger on the ledger writes it in the transaction that seals the hour, for paid phases of subscriptions that
    Stripe bills and meters that their plan version or an add-on has a price on; a later row follows an earlier one
    of its hour, phase and meter in any case. Rows are kept for ever: Stripe forgets identifiers after a day.

    `state`: `waiting` (Stripe does not have it), `sent` (Stripe was asked, and nobody knows whether it has it),
    `delivered` (Stripe has it), `cancelled` (Stripe had it and was told to forget it, or it and what takes it back
    were never sent), `refused` (Stripe would not count it), `too_old` or `ours` (Stripe's invoice cannot take it
    any more, or cannot rate it: our own adjustments do). `reason` says why, `error` what Stripe said.

    `way`: what it was sent as: `event`, or `cancel` of the row of `cancels_revision`. `stripe_at`: the moment it
    bears at Stripe, whole seconds. `edition` numbers identifiers: another one begins when it is known that Stripe
    did not count the one before; `first_sent_at` is of this edition. `key_turn` numbers idempotency keys: a key
    under which Stripe failed is spent. Before `due_at` a row is not looked at; until `leased_until` somebody is
    asking.
    """

    __tablename__ = "stripe_usage_rows"
    __table_args__ = (
        CheckConstraint("delta_units <> 0", name="delta_units"),
        CheckConstraint(
            "state IN ('waiting', 'sent', 'delivered', 'cancelled', 'refused', 'too_old', 'ours')", name="state"
        ),
        CheckConstraint("way IN ('', 'event', 'cancel')", name="way"),
        CheckConstraint("(way = 'cancel') = (cancels_revision IS NOT NULL)", name="cancels_revision"),
        CheckConstraint(
            "state NOT IN ('sent', 'delivered') OR (identifier IS NOT NULL AND customer_id IS NOT NULL"
            " AND event_name IS NOT NULL AND stripe_at IS NOT NULL AND first_sent_at IS NOT NULL)",
            name="sent_as",
        ),
        CheckConstraint("state <> 'delivered' OR delivered_at IS NOT NULL", name="delivered_at"),
        CheckConstraint("edition >= 1 AND key_turn >= 1 AND attempts >= 0", name="edition"),
        UniqueConstraint("identifier"),
        Index(
            "ix_stripe_usage_rows_lanes",
            "account_id",
            "meter",
            "hour",
            "revision",
            postgresql_where=text(UNSETTLED),
        ),
        Index("ix_stripe_usage_rows_unsettled", "subscription_id", "hour", postgresql_where=text(UNSETTLED)),
        Index(
            "ix_stripe_usage_rows_leased", "account_id", "meter", postgresql_where=text("leased_until IS NOT NULL")
        ),
        Index("ix_stripe_usage_rows_refused", "hour", postgresql_where=text("state = 'refused'")),
        Index(None, "subscription_id", "hour"),
        Index(
            "ix_stripe_usage_rows_summary",
            "customer_id",
            "event_name",
            "stripe_at",
            postgresql_where=text("customer_id IS NOT NULL"),
        ),
    )

    account_id: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    phase_id: Mapped[str] = mapped_column(primary_key=True)
    meter: Mapped[str] = mapped_column(primary_key=True)
    subscription_id: Mapped[str]
    plan_version_id: Mapped[str]
    delta_units: Mapped[int] = mapped_column(BigInteger)
    sealed_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(default="waiting", server_default="waiting")
    reason: Mapped[str] = mapped_column(default="", server_default="")
    error: Mapped[str] = mapped_column(default="", server_default="")
    way: Mapped[str] = mapped_column(default="", server_default="")
    cancels_revision: Mapped[int | None] = mapped_column(BigInteger)
    edition: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    key_turn: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    identifier: Mapped[str | None]
    customer_id: Mapped[str | None]
    event_name: Mapped[str | None]
    stripe_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    first_sent_at: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    due_at: Mapped[datetime]
    leased_until: Mapped[datetime | None]


class StripeUsageError(Base):
    """What a report of Stripe's said of one kind of error: how many events, and how many rows its samples named.

    A report names some of the events only. Where there were more, the meter's rows that were sent about
    `window_start` to `window_end` are in doubt (`rows_doubted`), and looked up in summaries.
    """

    __tablename__ = "stripe_usage_errors"
    __table_args__ = (
        CheckConstraint("error_count >= 0 AND rows_found >= 0 AND rows_doubted >= 0", name="counts"),
        Index(None, "reported_at", "event_id", "code"),
    )

    event_id: Mapped[str] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(primary_key=True)
    meter_id: Mapped[str] = mapped_column(default="", server_default="")
    error_count: Mapped[int]
    rows_found: Mapped[int]
    rows_doubted: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    sentence: Mapped[str] = mapped_column(default="", server_default="")
    window_start: Mapped[datetime | None]
    window_end: Mapped[datetime | None]
    reported_at: Mapped[datetime]
