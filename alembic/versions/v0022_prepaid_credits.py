"""Prepaid credits: grants and their ledger, reservations, what invoices and prepaid usage drew."""

import sqlalchemy as sa
from alembic import op

revision = "v0022"
down_revision = "v0021"
branch_labels = None
depends_on = None

FINAL = """
CREATE FUNCTION km_refuse_credit_entry_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'entries of the credit ledger are never changed' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER credit_entries_are_final BEFORE UPDATE OR DELETE ON credit_entries
    FOR EACH ROW EXECUTE FUNCTION km_refuse_credit_entry_change();
CREATE TRIGGER credit_entries_are_not_truncated BEFORE TRUNCATE ON credit_entries
    FOR EACH STATEMENT EXECUTE FUNCTION km_refuse_credit_entry_change();
"""


def upgrade() -> None:
    op.create_table(
        "credit_grants",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("remaining_minor", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("api_product_id", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("look_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("ck_credit_grants_currency")),
        sa.CheckConstraint("kind IN ('paid', 'promotional')", name=op.f("ck_credit_grants_kind")),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_credit_grants_amount_minor")),
        sa.CheckConstraint("expires_at > starts_at", name=op.f("ck_credit_grants_expires_at")),
        sa.CheckConstraint("priority BETWEEN 0 AND 1000", name=op.f("ck_credit_grants_priority")),
        sa.CheckConstraint(
            "remaining_minor BETWEEN 0 AND amount_minor", name=op.f("ck_credit_grants_remaining_minor")
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_credit_grants_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(
            ["api_product_id"], ["api_products.id"], name=op.f("fk_credit_grants_api_product_id_api_products")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credit_grants")),
        sa.UniqueConstraint("account_id", "reference", name=op.f("uq_credit_grants_account_id_reference")),
    )
    op.create_index(op.f("ix_credit_grants_account_id_id"), "credit_grants", ["account_id", "id"], unique=False)
    op.create_index(
        "ix_credit_grants_look_at",
        "credit_grants",
        ["look_at"],
        unique=False,
        postgresql_where=sa.text("look_at IS NOT NULL"),
    )
    op.create_index(
        "ix_credit_grants_remaining",
        "credit_grants",
        ["account_id"],
        unique=False,
        postgresql_where=sa.text("remaining_minor > 0"),
    )
    op.create_table(
        "credit_reservations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("api_product_id", sa.Text(), nullable=True),
        sa.Column("held_minor", sa.BigInteger(), nullable=False),
        sa.Column("settled_minor", sa.BigInteger(), nullable=True),
        sa.Column("status", sa.Text(), server_default="held", nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(status = 'held') = (ended_at IS NULL)", name=op.f("ck_credit_reservations_ended_at")),
        sa.CheckConstraint(
            "(status = 'settled') = (settled_minor IS NOT NULL)", name=op.f("ck_credit_reservations_settled")
        ),
        sa.CheckConstraint(
            "status IN ('held', 'settled', 'released', 'expired')", name=op.f("ck_credit_reservations_status")
        ),
        sa.CheckConstraint("held_minor > 0", name=op.f("ck_credit_reservations_held_minor")),
        sa.CheckConstraint("settled_minor >= 0", name=op.f("ck_credit_reservations_settled_minor")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_credit_reservations_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(
            ["api_product_id"],
            ["api_products.id"],
            name=op.f("fk_credit_reservations_api_product_id_api_products"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credit_reservations")),
        sa.UniqueConstraint("account_id", "reference", name=op.f("uq_credit_reservations_account_id_reference")),
    )
    op.create_index(
        "ix_credit_reservations_held",
        "credit_reservations",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("status = 'held'"),
    )
    op.create_table(
        "credit_entries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("grant_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("remaining_minor", sa.BigInteger(), nullable=False),
        sa.Column("invoice_id", sa.Text(), nullable=True),
        sa.Column("reservation_id", sa.Text(), nullable=True),
        sa.Column("subscription_id", sa.Text(), nullable=True),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=True),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(amount_minor > 0) = (kind IN ('grant', 'release', 'return'))", name=op.f("ck_credit_entries_sign")
        ),
        sa.CheckConstraint(
            "kind IN ('grant', 'reserve', 'release', 'draw', 'return', 'expire', 'revoke')",
            name=op.f("ck_credit_entries_kind"),
        ),
        sa.CheckConstraint("amount_minor <> 0", name=op.f("ck_credit_entries_amount_minor")),
        sa.CheckConstraint("remaining_minor >= 0", name=op.f("ck_credit_entries_remaining_minor")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_credit_entries_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(
            ["grant_id"], ["credit_grants.id"], name=op.f("fk_credit_entries_grant_id_credit_grants")
        ),
        sa.ForeignKeyConstraint(
            ["invoice_id"],
            ["invoices.id"],
            name=op.f("fk_credit_entries_invoice_id_invoices"),
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.ForeignKeyConstraint(
            ["reservation_id"],
            ["credit_reservations.id"],
            name=op.f("fk_credit_entries_reservation_id_credit_reservations"),
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["subscriptions.id"], name=op.f("fk_credit_entries_subscription_id_subscriptions")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credit_entries")),
    )
    op.create_index(op.f("ix_credit_entries_account_id_id"), "credit_entries", ["account_id", "id"], unique=False)
    op.create_index(op.f("ix_credit_entries_grant_id_id"), "credit_entries", ["grant_id", "id"], unique=False)
    op.create_index(
        "ix_credit_entries_invoice_id",
        "credit_entries",
        ["invoice_id"],
        unique=False,
        postgresql_where=sa.text("invoice_id IS NOT NULL"),
    )
    op.create_index(
        "ix_credit_entries_period",
        "credit_entries",
        ["subscription_id", "period_start"],
        unique=False,
        postgresql_where=sa.text("subscription_id IS NOT NULL"),
    )
    op.create_index(
        "ix_credit_entries_reservation_id",
        "credit_entries",
        ["reservation_id"],
        unique=False,
        postgresql_where=sa.text("reservation_id IS NOT NULL"),
    )
    op.create_table(
        "invoice_credits",
        sa.Column("invoice_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("prepaid_minor", sa.BigInteger(), nullable=False),
        sa.Column("returned_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_invoice_credits_amount_minor")),
        sa.CheckConstraint(
            "prepaid_minor BETWEEN 0 AND amount_minor", name=op.f("ck_invoice_credits_prepaid_minor")
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_invoice_credits_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(
            ["invoice_id"],
            ["invoices.id"],
            name=op.f("fk_invoice_credits_invoice_id_invoices"),
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("invoice_id", name=op.f("pk_invoice_credits")),
    )
    op.create_index(op.f("ix_invoice_credits_account_id"), "invoice_credits", ["account_id"], unique=False)
    op.create_table(
        "prepaid_periods",
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("period_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_minor", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("drawn_minor", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("looked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("invoice_id", sa.Text(), nullable=True),
        sa.CheckConstraint("drawn_minor >= 0 AND used_minor >= 0", name=op.f("ck_prepaid_periods_amounts")),
        sa.CheckConstraint("period_end > period_start", name=op.f("ck_prepaid_periods_period")),
        sa.ForeignKeyConstraint(
            ["invoice_id"],
            ["invoices.id"],
            name=op.f("fk_prepaid_periods_invoice_id_invoices"),
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscriptions.id"],
            name=op.f("fk_prepaid_periods_subscription_id_subscriptions"),
        ),
        sa.PrimaryKeyConstraint("subscription_id", "period_start", name=op.f("pk_prepaid_periods")),
    )
    op.create_index(
        "ix_prepaid_periods_open",
        "prepaid_periods",
        ["subscription_id"],
        unique=False,
        postgresql_where=sa.text("invoice_id IS NULL"),
    )
    op.execute(FINAL)


def downgrade() -> None:
    op.drop_table("prepaid_periods")
    op.drop_table("invoice_credits")
    op.drop_table("credit_entries")
    op.drop_table("credit_reservations")
    op.drop_table("credit_grants")
    op.execute("DROP FUNCTION km_refuse_credit_entry_change()")
