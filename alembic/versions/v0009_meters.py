"""Meters: what they count, by hour and by billing period."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "v0009"
down_revision = "v0008"
branch_labels = None
depends_on = None

FULL_HOUR = "mod(extract(epoch FROM hour), 3600) = 0"


def upgrade() -> None:
    op.create_table(
        "meters",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("api_product_id", sa.Text(), nullable=False),
        sa.Column("aggregation", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=True),
        sa.Column("events", sa.Text(), nullable=False),
        sa.Column("filters", JSONB(none_as_null=True), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("weights", JSONB(none_as_null=True), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("code ~ '^[a-z][a-z0-9_-]{0,47}$'", name=op.f("ck_meters_code")),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name=op.f("ck_meters_name_length")),
        sa.CheckConstraint(
            "aggregation IN ('count', 'sum', 'unique', 'max', 'latest')", name=op.f("ck_meters_aggregation")
        ),
        sa.CheckConstraint("(aggregation = 'count') = (value IS NULL)", name=op.f("ck_meters_value")),
        sa.CheckConstraint("events IN ('calls', 'reported', 'all')", name=op.f("ck_meters_events")),
        sa.CheckConstraint("jsonb_typeof(filters) = 'object'", name=op.f("ck_meters_filters")),
        sa.CheckConstraint("jsonb_typeof(weights) = 'object'", name=op.f("ck_meters_weights")),
        sa.ForeignKeyConstraint(
            ["api_product_id"], ["api_products.id"], name=op.f("fk_meters_api_product_id_api_products")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_meters")),
        sa.UniqueConstraint("code", name=op.f("uq_meters_code")),
    )
    op.create_index(op.f("ix_meters_api_product_id"), "meters", ["api_product_id"])
    _values()
    _backfills()


def _values() -> None:
    op.create_table(
        "meter_hourly",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("phase_id", sa.Text(), nullable=False),
        sa.Column("meter_id", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("latest_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("latest_event_id", sa.Text(), nullable=True),
        sa.CheckConstraint(FULL_HOUR, name=op.f("ck_meter_hourly_hour")),
        sa.CheckConstraint("value >= 0", name=op.f("ck_meter_hourly_value")),
        sa.CheckConstraint("events > 0", name=op.f("ck_meter_hourly_events")),
        sa.PrimaryKeyConstraint("account_id", "hour", "phase_id", "meter_id", name=op.f("pk_meter_hourly")),
    )
    op.create_index(op.f("ix_meter_hourly_phase_id_hour"), "meter_hourly", ["phase_id", "hour"])
    op.create_index(op.f("ix_meter_hourly_meter_id_hour"), "meter_hourly", ["meter_id", "hour"])
    op.create_table(
        "meter_periods",
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("meter_id", sa.Text(), nullable=False),
        sa.Column("plan_version_id", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("value >= 0", name=op.f("ck_meter_periods_value")),
        sa.CheckConstraint("events > 0", name=op.f("ck_meter_periods_events")),
        sa.PrimaryKeyConstraint(
            "subscription_id", "period_start", "meter_id", "plan_version_id", name=op.f("pk_meter_periods")
        ),
    )
    op.create_table(
        "meter_period_states",
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("period_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("counted_generation", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("counted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("period_end > period_start", name=op.f("ck_meter_period_states_period_end")),
        sa.CheckConstraint(
            "counted_generation BETWEEN 0 AND generation", name=op.f("ck_meter_period_states_counted_generation")
        ),
        sa.PrimaryKeyConstraint("subscription_id", "period_start", name=op.f("pk_meter_period_states")),
    )
    op.create_index(
        "ix_meter_period_states_due",
        "meter_period_states",
        ["due_at"],
        postgresql_where=sa.text("counted_generation < generation"),
    )
    op.create_index(
        op.f("ix_meter_period_states_account_id_period_end"), "meter_period_states", ["account_id", "period_end"]
    )


def _backfills() -> None:
    op.create_table(
        "meter_backfills",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("meter_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="running", nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_subscription_id", sa.Text(), server_default="", nullable=False),
        sa.Column("next_hour", sa.DateTime(timezone=True), nullable=True),
        sa.Column("subscriptions_total", sa.Integer(), nullable=False),
        sa.Column("subscriptions_done", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("hours_done", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("hours_skipped", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('running', 'done', 'stopped')", name=op.f("ck_meter_backfills_status")),
        sa.CheckConstraint(
            "(status = 'running') = (finished_at IS NULL)", name=op.f("ck_meter_backfills_finished_at")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_meter_backfills")),
    )
    op.create_index(op.f("ix_meter_backfills_meter_id"), "meter_backfills", ["meter_id"])
    running = sa.text("status = 'running'")
    op.create_index("ix_meter_backfills_running", "meter_backfills", ["created_at"], postgresql_where=running)
    op.create_index(
        "uq_meter_backfills_running", "meter_backfills", ["meter_id"], unique=True, postgresql_where=running
    )


def downgrade() -> None:
    for table in ("meter_backfills", "meter_period_states", "meter_periods", "meter_hourly", "meters"):
        op.drop_table(table)
