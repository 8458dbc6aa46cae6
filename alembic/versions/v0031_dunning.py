"""Cases of unpaid subscriptions, and what holds meanwhile."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "v0031"
down_revision = "v0030"
branch_labels = None
depends_on = None

OPEN = "closed_at IS NULL"


def upgrade() -> None:
    op.create_table(
        "payment_holds",
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("plan_version_id", sa.Text(), nullable=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('grace', 'block', 'free')", name=op.f("ck_payment_holds_kind")),
        sa.CheckConstraint(
            "(kind = 'free') = (plan_version_id IS NOT NULL)", name=op.f("ck_payment_holds_plan_version_id")
        ),
        sa.ForeignKeyConstraint(
            ["plan_version_id"], ["plan_versions.id"], name=op.f("fk_payment_holds_plan_version_id_plan_versions")
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["subscriptions.id"], name=op.f("fk_payment_holds_subscription_id_subscriptions")
        ),
        sa.PrimaryKeyConstraint("subscription_id", name=op.f("pk_payment_holds")),
    )
    op.create_index(
        "ix_subscriptions_past_due",
        "subscriptions",
        ["id"],
        unique=False,
        postgresql_where=sa.text("status = 'past_due'"),
    )
    op.create_table(
        "dunning_cases",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("after", sa.Text(), nullable=False),
        sa.Column("free_plan_version_id", sa.Text(), nullable=True),
        sa.Column("told", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("grace_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_notice_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("look_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fell_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('grace', 'blocked', 'fallen_back', 'recovered', 'over')",
            name=op.f("ck_dunning_cases_state"),
        ),
        sa.CheckConstraint(
            "(state IN ('recovered', 'over')) = (closed_at IS NOT NULL)", name=op.f("ck_dunning_cases_closed_at")
        ),
        sa.CheckConstraint("after IN ('block', 'free', 'serve')", name=op.f("ck_dunning_cases_after")),
        sa.CheckConstraint(
            "after <> 'free' OR free_plan_version_id IS NOT NULL", name=op.f("ck_dunning_cases_free_plan")
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_dunning_cases_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(
            ["free_plan_version_id"],
            ["plan_versions.id"],
            name=op.f("fk_dunning_cases_free_plan_version_id_plan_versions"),
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["subscriptions.id"], name=op.f("fk_dunning_cases_subscription_id_subscriptions")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dunning_cases")),
    )
    op.create_index(
        "uq_dunning_cases_open",
        "dunning_cases",
        ["subscription_id"],
        unique=True,
        postgresql_where=sa.text(OPEN),
    )
    op.create_index(
        "ix_dunning_cases_look_at",
        "dunning_cases",
        ["look_at"],
        unique=False,
        postgresql_where=sa.text(f"{OPEN} AND look_at IS NOT NULL"),
    )
    op.create_index(
        op.f("ix_dunning_cases_account_id_opened_at"), "dunning_cases", ["account_id", "opened_at"], unique=False
    )
    op.create_index(op.f("ix_dunning_cases_opened_at_id"), "dunning_cases", ["opened_at", "id"], unique=False)


def downgrade() -> None:
    op.drop_table("dunning_cases")
    op.drop_index(
        "ix_subscriptions_past_due", table_name="subscriptions", postgresql_where=sa.text("status = 'past_due'")
    )
    op.drop_table("payment_holds")
