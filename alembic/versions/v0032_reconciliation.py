"""What was compared, and what differs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "v0032"
down_revision = "v0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "reconciliations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=True),
        sa.Column("span_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("span_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("with_stripe", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Text(), server_default="queued", nullable=False),
        sa.Column("state", sa.Text(), server_default="", nullable=False),
        sa.Column("links", postgresql.JSONB(none_as_null=True), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status = 'queued') = (finished_at IS NULL)", name=op.f("ck_reconciliations_finished_at")
        ),
        sa.CheckConstraint(
            "state IN ('', 'equal', 'waiting', 'differs', 'not_checked')", name=op.f("ck_reconciliations_state")
        ),
        sa.CheckConstraint("status IN ('queued', 'done', 'failed')", name=op.f("ck_reconciliations_status")),
        sa.CheckConstraint("span_end > span_start", name=op.f("ck_reconciliations_span")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reconciliations")),
    )
    op.create_index(op.f("ix_reconciliations_created_at_id"), "reconciliations", ["created_at", "id"])
    op.create_index(
        "ix_reconciliations_queued",
        "reconciliations",
        ["created_at"],
        postgresql_where=sa.text("status = 'queued'"),
    )
    op.create_table(
        "reconciliation_differences",
        sa.Column("reconciliation_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("link", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=True),
        sa.Column("meter", sa.Text(), nullable=True),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("expected", sa.BigInteger(), nullable=False),
        sa.Column("found", sa.BigInteger(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "severity IN ('wrong', 'waiting')", name=op.f("ck_reconciliation_differences_severity")
        ),
        sa.ForeignKeyConstraint(
            ["reconciliation_id"],
            ["reconciliations.id"],
            name=op.f("fk_reconciliation_differences_reconciliation_id_reconciliations"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("reconciliation_id", "number", name=op.f("pk_reconciliation_differences")),
    )
    op.create_index(
        op.f("ix_reconciliation_differences_reconciliation_id_account_id"),
        "reconciliation_differences",
        ["reconciliation_id", "account_id"],
    )


def downgrade() -> None:
    op.drop_table("reconciliation_differences")
    op.drop_table("reconciliations")
