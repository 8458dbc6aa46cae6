"""Credit grants, the ledger of what they were used for, reservations, and what prepaid usage has drawn.

Triggers (see the migration) refuse any change to an entry that was written.
"""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base


class CreditGrant(Base):
    """An amount that an account can use up. `remaining_minor` is the sum of its entries, never below zero.

    Usable in [starts_at, expires_at), for invoices and prepaid usage of `api_product_id` only, where that is set.
    Lower `priority` is used first. A `reference` is used once in an account. `look_at`: when time does something
    to it next (see `model.next_look`).
    """

    __tablename__ = "credit_grants"
    __table_args__ = (
        UniqueConstraint("account_id", "reference"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        CheckConstraint("amount_minor > 0", name="amount_minor"),
        CheckConstraint("remaining_minor BETWEEN 0 AND amount_minor", name="remaining_minor"),
        CheckConstraint("kind IN ('paid', 'promotional')", name="kind"),
        CheckConstraint("priority BETWEEN 0 AND 1000", name="priority"),
        CheckConstraint("expires_at > starts_at", name="expires_at"),
        Index(None, "account_id", "id"),
        Index("ix_credit_grants_remaining", "account_id", postgresql_where=text("remaining_minor > 0")),
        Index("ix_credit_grants_look_at", "look_at", postgresql_where=text("look_at IS NOT NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    currency: Mapped[str]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    remaining_minor: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str]
    priority: Mapped[int]
    starts_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    api_product_id: Mapped[str | None] = mapped_column(ForeignKey("api_products.id"))
    reason: Mapped[str] = mapped_column(default="", server_default="")
    author: Mapped[str]
    reference: Mapped[str | None]
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    look_at: Mapped[datetime | None]


class CreditReservation(Base):
    """Credits held back for something that is about to be done, until it is settled, released or expires.

    `settled_minor` is what it came to, which may be more than was held. A reference is used once in an account.
    """

    __tablename__ = "credit_reservations"
    __table_args__ = (
        UniqueConstraint("account_id", "reference"),
        CheckConstraint("held_minor > 0", name="held_minor"),
        CheckConstraint("settled_minor >= 0", name="settled_minor"),
        CheckConstraint("(status = 'settled') = (settled_minor IS NOT NULL)", name="settled"),
        CheckConstraint("status IN ('held', 'settled', 'released', 'expired')", name="status"),
        CheckConstraint("(status = 'held') = (ended_at IS NULL)", name="ended_at"),
        Index("ix_credit_reservations_held", "expires_at", postgresql_where=text("status = 'held'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    reference: Mapped[str]
    currency: Mapped[str]
    api_product_id: Mapped[str | None] = mapped_column(ForeignKey("api_products.id"))
    held_minor: Mapped[int] = mapped_column(BigInteger)
    settled_minor: Mapped[int | None] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(default="held", server_default="held")
    author: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class CreditEntry(Base):
    """One change of what is left of a grant: `amount_minor` is added. Never changed, never deleted.

    What an invoice drew has its `invoice_id`; what prepaid usage drew, its subscription and billing period.
    """

    __tablename__ = "credit_entries"
    __table_args__ = (
        CheckConstraint(
            "kind IN ('grant', 'reserve', 'release', 'draw', 'return', 'expire', 'revoke')", name="kind"
        ),
        CheckConstraint("amount_minor <> 0", name="amount_minor"),
        CheckConstraint("(amount_minor > 0) = (kind IN ('grant', 'release', 'return'))", name="sign"),
        CheckConstraint("remaining_minor >= 0", name="remaining_minor"),
        Index(None, "grant_id", "id"),
        Index(None, "account_id", "id"),
        Index("ix_credit_entries_invoice_id", "invoice_id", postgresql_where=text("invoice_id IS NOT NULL")),
        Index(
            "ix_credit_entries_reservation_id",
            "reservation_id",
            postgresql_where=text("reservation_id IS NOT NULL"),
        ),
        Index(
            "ix_credit_entries_period",
            "subscription_id",
            "period_start",
            postgresql_where=text("subscription_id IS NOT NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    grant_id: Mapped[str] = mapped_column(ForeignKey("credit_grants.id"))
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    kind: Mapped[str]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    remaining_minor: Mapped[int] = mapped_column(BigInteger)
    # an invoice may be written after what it draws
    invoice_id: Mapped[str | None] = mapped_column(
        ForeignKey("invoices.id", deferrable=True, initially="DEFERRED")
    )
    reservation_id: Mapped[str | None] = mapped_column(ForeignKey("credit_reservations.id"))
    subscription_id: Mapped[str | None] = mapped_column(ForeignKey("subscriptions.id"))
    period_start: Mapped[datetime | None]
    author: Mapped[str]
    at: Mapped[datetime]


class InvoiceCredits(Base):
    """What credits paid of an invoice: `prepaid_minor` was drawn before, as it was used, the rest for the invoice.

    `returned_at`: the invoice was voided, and all of it given back.
    """

    __tablename__ = "invoice_credits"
    __table_args__ = (
        CheckConstraint("amount_minor > 0", name="amount_minor"),
        CheckConstraint("prepaid_minor BETWEEN 0 AND amount_minor", name="prepaid_minor"),
        Index(None, "account_id"),
    )

    invoice_id: Mapped[str] = mapped_column(
        ForeignKey("invoices.id", deferrable=True, initially="DEFERRED"), primary_key=True
    )
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    prepaid_minor: Mapped[int] = mapped_column(BigInteger)
    returned_at: Mapped[datetime | None]


class PrepaidPeriod(Base):
    """What the usage of a prepaid subscription has drawn in a billing period.

    `used_minor`: what the usage known at `looked_at` comes to; `drawn_minor` of it was drawn, by hours that are
    sealed. An invoice that bills the period closes it (`invoice_id`): from then on nothing is drawn ahead for it.
    """

    __tablename__ = "prepaid_periods"
    __table_args__ = (
        CheckConstraint("period_end > period_start", name="period"),
        CheckConstraint("drawn_minor >= 0 AND used_minor >= 0", name="amounts"),
        Index("ix_prepaid_periods_open", "subscription_id", postgresql_where=text("invoice_id IS NULL")),
    )

    subscription_id: Mapped[str] = mapped_column(ForeignKey("subscriptions.id"), primary_key=True)
    period_start: Mapped[datetime] = mapped_column(primary_key=True)
    period_end: Mapped[datetime]
    used_minor: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    drawn_minor: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    looked_at: Mapped[datetime]
    invoice_id: Mapped[str | None] = mapped_column(
        ForeignKey("invoices.id", deferrable=True, initially="DEFERRED")
    )
