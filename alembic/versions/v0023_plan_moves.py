"""Comparisons of plans and migrations of many subscriptions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "v0023"
down_revision = "v0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "plan_moves",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("from_plan_id", sa.Text(), nullable=False),
        sa.Column("from_versions", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("plan_version_id", sa.Text(), nullable=False),
        sa.Column("timing", sa.Text(), nullable=False),
        sa.Column("move_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("notice_days", sa.Integer(), nullable=False),
        sa.Column("message", sa.Text(), server_default="", nullable=False),
        sa.Column("status", sa.Text(), server_default="scheduled", nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status IN ('canceled', 'done')) = (finished_at IS NOT NULL)", name=op.f("ck_plan_moves_finished_at")
        ),
        sa.CheckConstraint(
            "status IN ('scheduled', 'canceling', 'canceled', 'done')", name=op.f("ck_plan_moves_status")
        ),
        sa.CheckConstraint("timing IN ('period_end', 'date')", name=op.f("ck_plan_moves_timing")),
        sa.CheckConstraint("notice_days >= 0", name=op.f("ck_plan_moves_notice_days")),
        sa.ForeignKeyConstraint(["from_plan_id"], ["plans.id"], name=op.f("fk_plan_moves_from_plan_id_plans")),
        sa.ForeignKeyConstraint(
            ["plan_version_id"], ["plan_versions.id"], name=op.f("fk_plan_moves_plan_version_id_plan_versions")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plan_moves")),
    )
    op.create_index(op.f("ix_plan_moves_created_at_id"), "plan_moves", ["created_at", "id"], unique=False)
    op.create_index(
        "ix_plan_moves_unfinished",
        "plan_moves",
        ["id"],
        unique=False,
        postgresql_where=sa.text("status IN ('scheduled', 'canceling')"),
    )
    op.create_table(
        "plan_move_items",
        sa.Column("move_id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("from_plan_version_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason_code", sa.Text(), server_default="", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("effective_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tell_by", sa.DateTime(timezone=True), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "notice",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("recurring_before_minor", sa.BigInteger(), nullable=True),
        sa.Column("recurring_after_minor", sa.BigInteger(), nullable=True),
        sa.Column("month_before_minor", sa.BigInteger(), nullable=True),
        sa.Column("month_after_minor", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "status IN ('waiting', 'planned', 'moved', 'skipped', 'failed', 'excluded', 'canceled')",
            name=op.f("ck_plan_move_items_status"),
        ),
        sa.CheckConstraint(
            "status NOT IN ('skipped', 'failed', 'excluded') OR reason <> ''",
            name=op.f("ck_plan_move_items_reason"),
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_plan_move_items_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(
            ["from_plan_version_id"],
            ["plan_versions.id"],
            name=op.f("fk_plan_move_items_from_plan_version_id_plan_versions"),
        ),
        sa.ForeignKeyConstraint(
            ["move_id"], ["plan_moves.id"], name=op.f("fk_plan_move_items_move_id_plan_moves")
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscriptions.id"],
            name=op.f("fk_plan_move_items_subscription_id_subscriptions"),
        ),
        sa.PrimaryKeyConstraint("move_id", "subscription_id", name=op.f("pk_plan_move_items")),
    )
    op.create_index(
        "ix_plan_move_items_planned",
        "plan_move_items",
        ["effective_at"],
        unique=False,
        postgresql_where=sa.text("status = 'planned'"),
    )
    op.create_index(
        "ix_plan_move_items_to_tell",
        "plan_move_items",
        ["tell_by"],
        unique=False,
        postgresql_where=sa.text("told_at IS NULL AND status IN ('waiting', 'planned')"),
    )
    op.create_index(
        "ix_plan_move_items_waiting",
        "plan_move_items",
        ["account_id"],
        unique=False,
        postgresql_where=sa.text("status = 'waiting'"),
    )
    op.create_index(
        "uq_plan_move_items_open",
        "plan_move_items",
        ["subscription_id"],
        unique=True,
        postgresql_where=sa.text("status IN ('waiting', 'planned')"),
    )
    op.create_table(
        "what_if_jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("plan_id", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("terms", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("months", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), server_default="queued", nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.Column("done_until", sa.Text(), server_default="", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status = 'queued') = (finished_at IS NULL)", name=op.f("ck_what_if_jobs_finished_at")
        ),
        sa.CheckConstraint("source IN ('draft', 'version', 'plan_file')", name=op.f("ck_what_if_jobs_source")),
        sa.CheckConstraint("status IN ('queued', 'done', 'failed')", name=op.f("ck_what_if_jobs_status")),
        sa.CheckConstraint("months BETWEEN 1 AND 12", name=op.f("ck_what_if_jobs_months")),
        sa.ForeignKeyConstraint(["plan_id"], ["plans.id"], name=op.f("fk_what_if_jobs_plan_id_plans")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_what_if_jobs")),
    )
    op.create_index(op.f("ix_what_if_jobs_created_at_id"), "what_if_jobs", ["created_at", "id"], unique=False)
    op.create_index(
        "ix_what_if_jobs_queued",
        "what_if_jobs",
        ["created_at"],
        unique=False,
        postgresql_where=sa.text("status = 'queued'"),
    )
    op.create_table(
        "what_if_results",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("periods", sa.Integer(), nullable=False),
        sa.Column("before_minor", sa.BigInteger(), nullable=False),
        sa.Column("after_minor", sa.BigInteger(), nullable=True),
        sa.Column("refused_units", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("periods >= 1", name=op.f("ck_what_if_results_periods")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_what_if_results_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["what_if_jobs.id"], name=op.f("fk_what_if_results_job_id_what_if_jobs")
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscriptions.id"],
            name=op.f("fk_what_if_results_subscription_id_subscriptions"),
        ),
        sa.PrimaryKeyConstraint("job_id", "subscription_id", name=op.f("pk_what_if_results")),
    )


def downgrade() -> None:
    op.drop_table("what_if_results")
    op.drop_table("what_if_jobs")
    op.drop_table("plan_move_items")
    op.drop_table("plan_moves")
