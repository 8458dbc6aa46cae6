"""Trials, pauses, time zones and add-ons of subscriptions."""

import sqlalchemy as sa
from alembic import op

revision = "v0018"
down_revision = "v0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("subscription_phases", sa.Column("kind", sa.Text(), server_default="paid", nullable=False))
    op.add_column("subscriptions", sa.Column("time_zone", sa.Text(), server_default="UTC", nullable=False))
    op.add_column("subscriptions", sa.Column("trial_ends_at", sa.DateTime(timezone=True), nullable=True))
    # of these nobody said when their trial ends: it ends now, and the next look makes them active
    op.execute("UPDATE subscriptions SET trial_ends_at = date_trunc('hour', now()) WHERE status = 'trialing'")
    op.add_column("subscriptions", sa.Column("unused_time", sa.Text(), server_default="kept", nullable=False))
    op.add_column("subscriptions", sa.Column("billed_by", sa.Text(), server_default="own", nullable=False))
    op.create_index(
        "ix_subscriptions_trial_ending",
        "subscriptions",
        ["trial_ends_at"],
        unique=False,
        postgresql_where=sa.text("status = 'trialing'"),
    )
    op.create_check_constraint(
        op.f("ck_subscriptions_trial_ends_at"),
        "subscriptions",
        "status <> 'trialing' OR trial_ends_at IS NOT NULL",
    )
    op.create_check_constraint(
        op.f("ck_subscriptions_unused_time"), "subscriptions", "unused_time IN ('kept', 'credited')"
    )
    op.create_check_constraint(
        op.f("ck_subscriptions_billed_by"), "subscriptions", "billed_by IN ('own', 'stripe')"
    )
    op.create_check_constraint(
        op.f("ck_subscription_phases_kind"), "subscription_phases", "kind IN ('paid', 'trial', 'paused')"
    )
    op.create_table(
        "subscription_add_ons",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("plan_version_id", sa.Text(), nullable=False),
        sa.Column("quantity", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("ends_at > starts_at", name=op.f("ck_subscription_add_ons_ends_at")),
        sa.CheckConstraint("quantity >= 1", name=op.f("ck_subscription_add_ons_quantity")),
        sa.ForeignKeyConstraint(
            ["plan_version_id"],
            ["plan_versions.id"],
            name=op.f("fk_subscription_add_ons_plan_version_id_plan_versions"),
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscriptions.id"],
            name=op.f("fk_subscription_add_ons_subscription_id_subscriptions"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subscription_add_ons")),
    )
    op.create_index(
        op.f("ix_subscription_add_ons_plan_version_id"), "subscription_add_ons", ["plan_version_id"], unique=False
    )
    op.create_index(
        op.f("ix_subscription_add_ons_subscription_id"), "subscription_add_ons", ["subscription_id"], unique=False
    )


def downgrade() -> None:
    op.drop_table("subscription_add_ons")
    op.drop_column("subscription_phases", "kind")
    op.drop_index("ix_subscriptions_trial_ending", table_name="subscriptions")
    for column in ("billed_by", "unused_time", "trial_ends_at", "time_zone"):
        op.drop_column("subscriptions", column)
