"""Stripe's invoices, as we know them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "v0029"
down_revision = "v0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "stripe_credit_notes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("invoice_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("memo", sa.Text(), server_default="", nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("adjustment_id", sa.Text(), nullable=True),
        sa.Column("pdf_url", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_stripe_credit_notes_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stripe_credit_notes")),
    )
    op.create_index(
        op.f("ix_stripe_credit_notes_account_id_id"), "stripe_credit_notes", ["account_id", "id"], unique=False
    )
    op.create_index(op.f("ix_stripe_credit_notes_invoice_id"), "stripe_credit_notes", ["invoice_id"], unique=False)
    op.create_table(
        "stripe_disputes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("invoice_id", sa.Text(), nullable=True),
        sa.Column("charge_id", sa.Text(), nullable=True),
        sa.Column("payment_intent_id", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("evidence_due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_stripe_disputes_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stripe_disputes")),
    )
    op.create_index(op.f("ix_stripe_disputes_account_id"), "stripe_disputes", ["account_id"], unique=False)
    op.create_index(op.f("ix_stripe_disputes_invoice_id"), "stripe_disputes", ["invoice_id"], unique=False)
    op.create_table(
        "stripe_adjustments",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("charge_key", sa.Text(), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("way", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="wanted", nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("invoice_id", sa.Text(), nullable=True),
        sa.Column("stripe_id", sa.Text(), nullable=True),
        sa.Column("edition", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("first_tried_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refusal", sa.Text(), nullable=True),
        sa.Column("details", JSONB(none_as_null=True), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "cause IN ('not_native', 'allowance', 'late_usage', 'correction', 'dispute', 'goodwill')",
            name=op.f("ck_stripe_adjustments_cause"),
        ),
        sa.CheckConstraint("state IN ('wanted', 'done', 'refused')", name=op.f("ck_stripe_adjustments_state")),
        sa.CheckConstraint(
            "way <> 'credit_note' OR amount_minor < 0", name=op.f("ck_stripe_adjustments_credit_note")
        ),
        sa.CheckConstraint(
            "way IN ('item', 'credit_note', 'written_off')", name=op.f("ck_stripe_adjustments_way")
        ),
        sa.CheckConstraint("amount_minor <> 0", name=op.f("ck_stripe_adjustments_amount_minor")),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscriptions.id"],
            name=op.f("fk_stripe_adjustments_subscription_id_subscriptions"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stripe_adjustments")),
        sa.UniqueConstraint("stripe_id", name=op.f("uq_stripe_adjustments_stripe_id")),
        sa.UniqueConstraint(
            "subscription_id",
            "period_start",
            "charge_key",
            "turn",
            name=op.f("uq_stripe_adjustments_subscription_id_period_start_charge_key_turn"),
        ),
    )
    op.create_index(op.f("ix_stripe_adjustments_invoice_id"), "stripe_adjustments", ["invoice_id"], unique=False)
    op.create_index(
        "ix_stripe_adjustments_wanted",
        "stripe_adjustments",
        ["id"],
        unique=False,
        postgresql_where=sa.text("state = 'wanted'"),
    )
    op.create_table(
        "stripe_invoice_checks",
        sa.Column("invoice_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("expected_minor", sa.BigInteger(), nullable=False),
        sa.Column("actual_minor", sa.BigInteger(), nullable=False),
        sa.Column("agrees", sa.Boolean(), nullable=False),
        sa.Column("differences", JSONB(none_as_null=True), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("expected", JSONB(none_as_null=True), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("unknown", ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_stripe_invoice_checks_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscriptions.id"],
            name=op.f("fk_stripe_invoice_checks_subscription_id_subscriptions"),
        ),
        sa.PrimaryKeyConstraint("invoice_id", name=op.f("pk_stripe_invoice_checks")),
    )
    op.create_index(
        "ix_stripe_invoice_checks_differ",
        "stripe_invoice_checks",
        ["checked_at"],
        unique=False,
        postgresql_where=sa.text("NOT agrees"),
    )
    op.create_index(
        op.f("ix_stripe_invoice_checks_subscription_id"),
        "stripe_invoice_checks",
        ["subscription_id"],
        unique=False,
    )
    op.create_table(
        "stripe_invoice_tasks",
        sa.Column("invoice_id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("period_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("look_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("held_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("alarmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("usage_as_of", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('waiting', 'adjusting', 'releasing', 'done', 'late', 'gone')",
            name=op.f("ck_stripe_invoice_tasks_state"),
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscriptions.id"],
            name=op.f("fk_stripe_invoice_tasks_subscription_id_subscriptions"),
        ),
        sa.PrimaryKeyConstraint("invoice_id", name=op.f("pk_stripe_invoice_tasks")),
    )
    op.create_index(
        "ix_stripe_invoice_tasks_look_at",
        "stripe_invoice_tasks",
        ["look_at"],
        unique=False,
        postgresql_where=sa.text("look_at IS NOT NULL"),
    )
    op.create_index(
        op.f("ix_stripe_invoice_tasks_subscription_id_period_start"),
        "stripe_invoice_tasks",
        ["subscription_id", "period_start"],
        unique=False,
    )
    op.create_table(
        "stripe_invoices",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=True),
        sa.Column("stripe_subscription_id", sa.Text(), nullable=True),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("billing_reason", sa.Text(), nullable=False),
        sa.Column("collection", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("period_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("subtotal_minor", sa.BigInteger(), nullable=False),
        sa.Column("discount_minor", sa.BigInteger(), nullable=False),
        sa.Column("tax_minor", sa.BigInteger(), nullable=False),
        sa.Column("total_minor", sa.BigInteger(), nullable=False),
        sa.Column("balance_minor", sa.BigInteger(), nullable=False),
        sa.Column("amount_due_minor", sa.BigInteger(), nullable=False),
        sa.Column("amount_paid_minor", sa.BigInteger(), nullable=False),
        sa.Column("amount_remaining_minor", sa.BigInteger(), nullable=False),
        sa.Column("credited_minor", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("discounts", JSONB(none_as_null=True), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("taxes", JSONB(none_as_null=True), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("automatic_tax", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("auto_advance", sa.Boolean(), nullable=False),
        sa.Column("attempt_count", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finalizes_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finalised_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("paid_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("voided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("hosted_url", sa.Text(), nullable=True),
        sa.Column("pdf_url", sa.Text(), nullable=True),
        sa.Column("finalization_error", sa.Text(), nullable=True),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("ck_stripe_invoices_currency")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_stripe_invoices_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscriptions.id"],
            name=op.f("fk_stripe_invoices_subscription_id_subscriptions"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stripe_invoices")),
    )
    op.create_index(
        "ix_stripe_invoices_account_id", "stripe_invoices", ["account_id", "created_at", "id"], unique=False
    )
    op.create_index("ix_stripe_invoices_created_at", "stripe_invoices", ["created_at", "id"], unique=False)
    op.create_index(
        "ix_stripe_invoices_subscription_id", "stripe_invoices", ["subscription_id", "created_at"], unique=False
    )
    op.create_index(
        "ix_stripe_invoices_unknown",
        "stripe_invoices",
        ["stripe_subscription_id"],
        unique=False,
        postgresql_where=sa.text("subscription_id IS NULL AND stripe_subscription_id IS NOT NULL"),
    )
    op.create_table(
        "stripe_invoice_lines",
        sa.Column("invoice_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("charge_key", sa.Text(), server_default="", nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("discount_minor", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=True),
        sa.Column("price_id", sa.Text(), nullable=True),
        sa.Column("item_id", sa.Text(), nullable=True),
        sa.Column("invoice_item_id", sa.Text(), nullable=True),
        sa.Column("adjustment_id", sa.Text(), nullable=True),
        sa.Column("proration", sa.Boolean(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("period_end", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "kind IN ('flat', 'metered', 'setup_fee', 'proration', 'adjustment', 'other')",
            name=op.f("ck_stripe_invoice_lines_kind"),
        ),
        sa.ForeignKeyConstraint(
            ["invoice_id"],
            ["stripe_invoices.id"],
            name=op.f("fk_stripe_invoice_lines_invoice_id_stripe_invoices"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("invoice_id", "id", name=op.f("pk_stripe_invoice_lines")),
    )
    op.create_index(
        op.f("ix_stripe_invoice_lines_adjustment_id"), "stripe_invoice_lines", ["adjustment_id"], unique=False
    )
    op.create_table(
        "stripe_payments",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("invoice_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("paid_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["invoice_id"],
            ["stripe_invoices.id"],
            name=op.f("fk_stripe_payments_invoice_id_stripe_invoices"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stripe_payments")),
    )
    op.create_index(op.f("ix_stripe_payments_invoice_id"), "stripe_payments", ["invoice_id"], unique=False)
    op.create_index(op.f("ix_stripe_payments_reference"), "stripe_payments", ["reference"], unique=False)


def downgrade() -> None:
    op.drop_table("stripe_payments")
    op.drop_table("stripe_invoice_lines")
    op.drop_table("stripe_invoice_checks")
    op.drop_table("stripe_invoice_tasks")
    op.drop_table("stripe_adjustments")
    op.drop_table("stripe_disputes")
    op.drop_table("stripe_credit_notes")
    op.drop_table("stripe_invoices")
