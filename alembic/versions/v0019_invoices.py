"""Invoices, their numbers, and how far subscriptions are billed."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "v0019"
down_revision = "v0018"
branch_labels = None
depends_on = None

# What becomes of a final invoice is paid, given back or given up; what it says never changes.
FINAL_INVOICES = """
CREATE FUNCTION km_refuse_final_invoice_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    allowed invoices%ROWTYPE;
BEGIN
    IF OLD.status = 'draft' THEN
        IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
        RETURN NEW;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        allowed := OLD;
        allowed.status := NEW.status;
        allowed.amount_paid_minor := NEW.amount_paid_minor;
        allowed.credited_minor := NEW.credited_minor;
        allowed.paid_at := NEW.paid_at;
        allowed.voided_at := NEW.voided_at;
        IF NEW.status <> 'draft' AND NEW IS NOT DISTINCT FROM allowed THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'invoice % is final', OLD.id USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER final_invoice_is_final BEFORE UPDATE OR DELETE ON invoices
    FOR EACH ROW EXECUTE FUNCTION km_refuse_final_invoice_change();
"""

# Once a statement, not once a row: closing writes lines by the thousand. What credit notes take back of a line is
# noted at it (`corrected_minor`).
FINAL_LINES = """
CREATE FUNCTION km_refuse_final_line_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM changed JOIN invoices ON invoices.id = changed.invoice_id
               WHERE invoices.status <> 'draft') THEN
        RAISE EXCEPTION 'lines of a final invoice are final' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION km_refuse_final_line_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM before JOIN invoices ON invoices.id = before.invoice_id
               LEFT JOIN changed ON changed.id = before.id
               WHERE invoices.status <> 'draft'
                   AND to_jsonb(before) - 'corrected_minor' IS DISTINCT FROM to_jsonb(changed) - 'corrected_minor')
    THEN
        RAISE EXCEPTION 'lines of a final invoice are final' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER inserted_lines_are_of_drafts AFTER INSERT ON invoice_lines REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION km_refuse_final_line_change();
CREATE TRIGGER updated_lines_are_of_drafts AFTER UPDATE ON invoice_lines
    REFERENCING OLD TABLE AS before NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION km_refuse_final_line_update();
CREATE TRIGGER deleted_lines_are_of_drafts AFTER DELETE ON invoice_lines REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION km_refuse_final_line_change();
"""

# Those that run already are billed from the period on that runs now; what was before was billed by other means.
RUNNING_SUBSCRIPTIONS = """
INSERT INTO subscription_billing (subscription_id, look_at, usage_billed_until)
SELECT id, CASE WHEN status IN ('canceled', 'ended') THEN NULL ELSE now() END, now() FROM subscriptions
"""


def upgrade() -> None:
    op.create_table(
        "invoice_numbers",
        sa.Column("series", sa.Text(), nullable=False),
        sa.Column("next_number", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.CheckConstraint("next_number >= 1", name=op.f("ck_invoice_numbers_next_number")),
        sa.PrimaryKeyConstraint("series", name=op.f("pk_invoice_numbers")),
    )
    op.create_table(
        "invoices",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=True),
        sa.Column("number", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), server_default="draft", nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("period_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("subtotal_minor", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("discount_minor", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("tax_minor", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("total_minor", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("credits_applied_minor", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("balance_applied_minor", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("amount_due_minor", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("amount_paid_minor", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("credited_minor", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("discounts", JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("taxes", JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("seller", JSONB(), nullable=True),
        sa.Column("buyer", JSONB(), nullable=True),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("draft_digest", sa.Text(), nullable=True),
        sa.Column("usage_as_of", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finalise_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finalised_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("paid_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("voided_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(status = 'draft') = (finalised_at IS NULL)", name=op.f("ck_invoices_finalised_at")),
        sa.CheckConstraint("(status = 'draft') = (number IS NULL)", name=op.f("ck_invoices_number")),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("ck_invoices_currency")),
        sa.CheckConstraint(
            "reason IN ('start', 'period', 'change', 'final', 'manual')", name=op.f("ck_invoices_reason")
        ),
        sa.CheckConstraint(
            "status = 'draft' OR amount_due_minor >= 0", name=op.f("ck_invoices_amount_due_not_negative")
        ),
        sa.CheckConstraint(
            "status IN ('draft', 'open', 'paid', 'void', 'uncollectible')", name=op.f("ck_invoices_status")
        ),
        sa.CheckConstraint(
            "amount_due_minor = total_minor - credits_applied_minor - balance_applied_minor",
            name=op.f("ck_invoices_amount_due_minor"),
        ),
        sa.CheckConstraint(
            "amount_paid_minor >= 0 AND credited_minor >= 0", name=op.f("ck_invoices_paid_and_credited")
        ),
        sa.CheckConstraint("credits_applied_minor >= 0", name=op.f("ck_invoices_credits_applied_minor")),
        sa.CheckConstraint(
            "total_minor = subtotal_minor - discount_minor + tax_minor", name=op.f("ck_invoices_total_minor")
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_invoices_account_id_accounts")),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["subscriptions.id"], name=op.f("fk_invoices_subscription_id_subscriptions")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invoices")),
        sa.UniqueConstraint("number", name=op.f("uq_invoices_number")),
    )
    op.create_index("ix_invoices_account_id", "invoices", ["account_id", "created_at"], unique=False)
    op.create_index(
        "ix_invoices_due_at", "invoices", ["due_at"], unique=False, postgresql_where=sa.text("status = 'open'")
    )
    op.create_index(
        "uq_invoices_draft",
        "invoices",
        ["subscription_id"],
        unique=True,
        postgresql_where=sa.text("status = 'draft' AND reason <> 'manual'"),
    )
    op.create_index("ix_invoices_subscription_id", "invoices", ["subscription_id", "period_start"], unique=False)
    op.create_table(
        "subscription_billing",
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("look_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("usage_billed_until", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscriptions.id"],
            name=op.f("fk_subscription_billing_subscription_id_subscriptions"),
        ),
        sa.PrimaryKeyConstraint("subscription_id", name=op.f("pk_subscription_billing")),
    )
    op.create_index(
        "ix_subscription_billing_look_at",
        "subscription_billing",
        ["look_at", "subscription_id"],
        unique=False,
        postgresql_where=sa.text("look_at IS NOT NULL"),
    )
    op.create_table(
        "billed_periods",
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("period_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("usage_as_of", sa.DateTime(timezone=True), nullable=False),
        sa.Column("invoice_id", sa.Text(), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("period_end > period_start", name=op.f("ck_billed_periods_period")),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["invoices.id"], name=op.f("fk_billed_periods_invoice_id_invoices")
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["subscriptions.id"], name=op.f("fk_billed_periods_subscription_id_subscriptions")
        ),
        sa.PrimaryKeyConstraint("subscription_id", "period_start", name=op.f("pk_billed_periods")),
    )
    op.create_table(
        "invoice_lines",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("invoice_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=True),
        sa.Column("charge_key", sa.Text(), server_default="", nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("period_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("plan_version_id", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("formula", sa.Text(), server_default="", nullable=False),
        sa.Column("meter", sa.Text(), nullable=True),
        sa.Column("used_units", sa.BigInteger(), nullable=True),
        sa.Column("quantity", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("unit_amount", sa.Numeric(), nullable=True),
        sa.Column("exact_amount", sa.Numeric(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("tiers", JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("details", JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.CheckConstraint(
            "kind IN ('recurring', 'usage', 'setup_fee', 'commitment', 'credit_purchase', 'manual')",
            name=op.f("ck_invoice_lines_kind"),
        ),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["invoices.id"], name=op.f("fk_invoice_lines_invoice_id_invoices"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["plan_version_id"], ["plan_versions.id"], name=op.f("fk_invoice_lines_plan_version_id_plan_versions")
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["subscriptions.id"], name=op.f("fk_invoice_lines_subscription_id_subscriptions")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invoice_lines")),
        sa.UniqueConstraint("invoice_id", "position", name=op.f("uq_invoice_lines_invoice_id_position")),
    )
    op.create_index("ix_invoice_lines_billed", "invoice_lines", ["subscription_id", "period_start"], unique=False)
    op.create_index(
        "ix_billed_periods_changed",
        "billed_periods",
        ["subscription_id"],
        unique=False,
        postgresql_where=sa.text("changed_at IS NOT NULL"),
    )
    op.create_table(
        "billing_watermarks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("seen_until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_billing_watermarks")),
    )
    op.create_index("ix_usage_ledger_sealed_at", "usage_ledger", ["sealed_at"], postgresql_using="brin")
    op.execute(FINAL_INVOICES)
    op.execute(FINAL_LINES)
    op.execute(RUNNING_SUBSCRIPTIONS)


def downgrade() -> None:
    op.drop_index("ix_usage_ledger_sealed_at", table_name="usage_ledger")
    op.drop_table("billing_watermarks")
    op.drop_table("invoice_lines")
    op.drop_table("billed_periods")
    op.drop_table("subscription_billing")
    op.drop_table("invoices")
    op.drop_table("invoice_numbers")
    op.execute("DROP FUNCTION km_refuse_final_line_change")
    op.execute("DROP FUNCTION km_refuse_final_line_update")
    op.execute("DROP FUNCTION km_refuse_final_invoice_change")
