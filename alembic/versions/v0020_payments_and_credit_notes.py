"""What happens to an invoice once it is final: billing profiles, balances, payments, credit notes."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "v0020"
down_revision = "v0019"
branch_labels = None
depends_on = None

# what was noted of money is never changed: a mistake is put right by another entry
FINAL = """
CREATE FUNCTION km_refuse_noted_money_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is never changed', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER balance_entries_are_final BEFORE UPDATE OR DELETE ON balance_entries
    FOR EACH ROW EXECUTE FUNCTION km_refuse_noted_money_change();
CREATE TRIGGER invoice_payments_are_final BEFORE UPDATE OR DELETE ON invoice_payments
    FOR EACH ROW EXECUTE FUNCTION km_refuse_noted_money_change();
CREATE TRIGGER credit_notes_are_final BEFORE UPDATE OR DELETE ON credit_notes
    FOR EACH ROW EXECUTE FUNCTION km_refuse_noted_money_change();
CREATE TRIGGER credit_note_lines_are_final BEFORE UPDATE OR DELETE ON credit_note_lines
    FOR EACH ROW EXECUTE FUNCTION km_refuse_noted_money_change();
"""

# What a dispute gave by a credit note on top of the bill it must not give again by taking requests out of it.
NOT_TWICE = """
CREATE FUNCTION km_refuse_giving_back_twice() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM credit_notes
               WHERE credit_notes.dispute_id = NEW.dispute_id AND NOT credit_notes.lowers_billed) THEN
        RAISE EXCEPTION 'dispute % gave a credit note: voids would give the same back again', NEW.dispute_id
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER disputes_give_back_once BEFORE INSERT ON dispute_steps
    FOR EACH ROW WHEN (NEW.step = 'requests_voided') EXECUTE FUNCTION km_refuse_giving_back_twice();
"""
GIVEN_TWICE = """
DROP TRIGGER disputes_give_back_once ON dispute_steps;
DROP FUNCTION km_refuse_giving_back_twice;
"""
NO_LONGER_FINAL = """
DROP TRIGGER credit_note_lines_are_final ON credit_note_lines;
DROP TRIGGER credit_notes_are_final ON credit_notes;
DROP TRIGGER invoice_payments_are_final ON invoice_payments;
DROP TRIGGER balance_entries_are_final ON balance_entries;
DROP FUNCTION km_refuse_noted_money_change;
"""


def upgrade() -> None:
    op.create_table(
        "account_balances",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("ck_account_balances_currency")),
        sa.CheckConstraint("amount_minor >= 0", name=op.f("ck_account_balances_amount_minor")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_account_balances_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("account_id", "currency", name=op.f("pk_account_balances")),
    )
    op.create_table(
        "billing_profiles",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("legal_name", sa.Text(), nullable=False),
        sa.Column("address_lines", ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("postal_code", sa.Text(), server_default="", nullable=False),
        sa.Column("city", sa.Text(), server_default="", nullable=False),
        sa.Column("region", sa.Text(), server_default="", nullable=False),
        sa.Column("country", sa.Text(), server_default="", nullable=False),
        sa.Column("tax_id", sa.Text(), server_default="", nullable=False),
        sa.Column("invoice_email", sa.Text(), server_default="", nullable=False),
        sa.Column("tax_treatment", sa.Text(), server_default="standard", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("country = '' OR country ~ '^[A-Z]{2}$'", name=op.f("ck_billing_profiles_country")),
        sa.CheckConstraint(
            "tax_treatment IN ('standard', 'exempt', 'reverse_charge')",
            name=op.f("ck_billing_profiles_tax_treatment"),
        ),
        sa.CheckConstraint(
            "char_length(legal_name) BETWEEN 1 AND 200", name=op.f("ck_billing_profiles_legal_name")
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_billing_profiles_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_billing_profiles")),
    )
    op.create_table(
        "credit_notes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("invoice_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("dispute_id", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("lowers_billed", sa.Boolean(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("subtotal_minor", sa.BigInteger(), nullable=False),
        sa.Column("discount_minor", sa.BigInteger(), nullable=False),
        sa.Column("tax_minor", sa.BigInteger(), nullable=False),
        sa.Column("total_minor", sa.BigInteger(), nullable=False),
        sa.Column("to_due_minor", sa.BigInteger(), nullable=False),
        sa.Column("to_balance_minor", sa.BigInteger(), nullable=False),
        sa.Column("to_outside_minor", sa.BigInteger(), nullable=False),
        sa.Column("taxes", JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("seller", JSONB(), nullable=True),
        sa.Column("buyer", JSONB(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("request", JSONB(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(reason = 'dispute') = (dispute_id IS NOT NULL)", name=op.f("ck_credit_notes_dispute_id")
        ),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("ck_credit_notes_currency")),
        sa.CheckConstraint("reason <> 'correction' OR lowers_billed", name=op.f("ck_credit_notes_correction")),
        sa.CheckConstraint("reason <> 'goodwill' OR NOT lowers_billed", name=op.f("ck_credit_notes_goodwill")),
        sa.CheckConstraint("reason IN ('correction', 'dispute', 'goodwill')", name=op.f("ck_credit_notes_reason")),
        sa.CheckConstraint("subtotal_minor > 0 AND tax_minor >= 0", name=op.f("ck_credit_notes_parts")),
        sa.CheckConstraint(
            "to_due_minor >= 0 AND to_balance_minor >= 0 AND to_outside_minor >= 0",
            name=op.f("ck_credit_notes_ways"),
        ),
        sa.CheckConstraint(
            "total_minor = subtotal_minor - discount_minor + tax_minor", name=op.f("ck_credit_notes_total_minor")
        ),
        sa.CheckConstraint(
            "total_minor = to_due_minor + to_balance_minor + to_outside_minor",
            name=op.f("ck_credit_notes_where_it_went"),
        ),
        sa.CheckConstraint("total_minor > 0", name=op.f("ck_credit_notes_above_nothing")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_credit_notes_account_id_accounts")),
        sa.ForeignKeyConstraint(["dispute_id"], ["disputes.id"], name=op.f("fk_credit_notes_dispute_id_disputes")),
        sa.ForeignKeyConstraint(["invoice_id"], ["invoices.id"], name=op.f("fk_credit_notes_invoice_id_invoices")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credit_notes")),
        sa.UniqueConstraint(
            "invoice_id", "idempotency_key", name=op.f("uq_credit_notes_invoice_id_idempotency_key")
        ),
        sa.UniqueConstraint("number", name=op.f("uq_credit_notes_number")),
    )
    op.create_index(op.f("ix_credit_notes_account_id_id"), "credit_notes", ["account_id", "id"], unique=False)
    op.create_table(
        "invoice_payments",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("invoice_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("surplus_minor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("paid_on", sa.Date(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), server_default="", nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('payment', 'balance', 'refund')", name=op.f("ck_invoice_payments_kind")),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_invoice_payments_amount_minor")),
        sa.CheckConstraint("char_length(reference) BETWEEN 1 AND 200", name=op.f("ck_invoice_payments_reference")),
        sa.CheckConstraint(
            "surplus_minor >= 0 AND surplus_minor <= amount_minor", name=op.f("ck_invoice_payments_surplus_minor")
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_invoice_payments_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["invoices.id"], name=op.f("fk_invoice_payments_invoice_id_invoices")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invoice_payments")),
        sa.UniqueConstraint(
            "invoice_id", "kind", "reference", name=op.f("uq_invoice_payments_invoice_id_kind_reference")
        ),
    )
    op.create_index(
        op.f("ix_invoice_payments_account_id_id"), "invoice_payments", ["account_id", "id"], unique=False
    )
    op.create_table(
        "balance_entries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("sum_minor", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("invoice_id", sa.Text(), nullable=True),
        sa.Column("credit_note_id", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(kind = 'credit_note') = (credit_note_id IS NOT NULL)", name=op.f("ck_balance_entries_credit_note_id")
        ),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("ck_balance_entries_currency")),
        sa.CheckConstraint(
            "kind IN ('invoice', 'void', 'credit_note', 'surplus', 'payment', 'adjustment')",
            name=op.f("ck_balance_entries_kind"),
        ),
        sa.CheckConstraint(
            "kind NOT IN ('invoice', 'void', 'surplus', 'payment') OR invoice_id IS NOT NULL",
            name=op.f("ck_balance_entries_invoice_id"),
        ),
        sa.CheckConstraint("amount_minor <> 0", name=op.f("ck_balance_entries_amount_minor")),
        sa.CheckConstraint("sum_minor >= 0", name=op.f("ck_balance_entries_sum_minor")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_balance_entries_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(
            ["credit_note_id"], ["credit_notes.id"], name=op.f("fk_balance_entries_credit_note_id_credit_notes")
        ),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["invoices.id"], name=op.f("fk_balance_entries_invoice_id_invoices")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_balance_entries")),
    )
    op.create_index("ix_balance_entries_account_id", "balance_entries", ["account_id", "id"], unique=False)
    op.create_index(
        "uq_balance_entries_credit_note",
        "balance_entries",
        ["credit_note_id"],
        unique=True,
        postgresql_where=sa.text("credit_note_id IS NOT NULL"),
    )
    op.create_index(
        "uq_balance_entries_idempotency_key",
        "balance_entries",
        ["account_id", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_index(
        "uq_balance_entries_invoice",
        "balance_entries",
        ["invoice_id", "kind"],
        unique=True,
        postgresql_where=sa.text("kind IN ('invoice', 'void')"),
    )
    op.create_table(
        "credit_note_lines",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("credit_note_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("invoice_line_id", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("amount_minor <> 0", name=op.f("ck_credit_note_lines_amount_minor")),
        sa.ForeignKeyConstraint(
            ["credit_note_id"], ["credit_notes.id"], name=op.f("fk_credit_note_lines_credit_note_id_credit_notes")
        ),
        sa.ForeignKeyConstraint(
            ["invoice_line_id"],
            ["invoice_lines.id"],
            name=op.f("fk_credit_note_lines_invoice_line_id_invoice_lines"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credit_note_lines")),
        sa.UniqueConstraint(
            "credit_note_id", "position", name=op.f("uq_credit_note_lines_credit_note_id_position")
        ),
    )
    op.create_index(
        op.f("ix_credit_note_lines_invoice_line_id"), "credit_note_lines", ["invoice_line_id"], unique=False
    )
    op.add_column(
        "invoice_lines", sa.Column("corrected_minor", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    )
    op.create_check_constraint(
        op.f("ck_invoice_lines_corrected_minor"),
        "invoice_lines",
        "corrected_minor BETWEEN least(amount_minor, 0) AND greatest(amount_minor, 0)",
    )
    op.create_index("ix_invoices_created_at", "invoices", ["created_at", "id"], unique=False)
    op.execute(FINAL)
    op.execute(NOT_TWICE)


def downgrade() -> None:
    op.execute(GIVEN_TWICE)
    op.execute(NO_LONGER_FINAL)
    op.drop_index("ix_invoices_created_at", table_name="invoices")
    op.drop_column("invoice_lines", "corrected_minor")
    op.drop_index(op.f("ix_credit_note_lines_invoice_line_id"), table_name="credit_note_lines")
    op.drop_table("credit_note_lines")
    op.drop_index(
        "uq_balance_entries_invoice",
        table_name="balance_entries",
        postgresql_where=sa.text("kind IN ('invoice', 'void')"),
    )
    op.drop_index(
        "uq_balance_entries_idempotency_key",
        table_name="balance_entries",
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.drop_index(
        "uq_balance_entries_credit_note",
        table_name="balance_entries",
        postgresql_where=sa.text("credit_note_id IS NOT NULL"),
    )
    op.drop_index("ix_balance_entries_account_id", table_name="balance_entries")
    op.drop_table("balance_entries")
    op.drop_index(op.f("ix_invoice_payments_account_id_id"), table_name="invoice_payments")
    op.drop_table("invoice_payments")
    op.drop_index(op.f("ix_credit_notes_account_id_id"), table_name="credit_notes")
    op.drop_table("credit_notes")
    op.drop_table("billing_profiles")
    op.drop_table("account_balances")
