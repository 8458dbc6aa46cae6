"""Daily rollups, and how long hourly ones are kept."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "v0014"
down_revision = "v0013"
branch_labels = None
depends_on = None

FULL_DAY = "mod(extract(epoch FROM day), 86400) = 0"
TEXTS = ("phase_id", "product", "mode", "key_id", "endpoint")
SUMS = (
    "calls",
    "units",
    "billable_calls",
    "billable_units",
    "bytes_in",
    "bytes_out",
    "latency_ms_sum",
    "gateway_ms_sum",
    "upstream_ms_sum",
)

# Whoever writes an hour's rows marks its day, or readers would take the day as it was rolled up before. Hours that
# are dropped since they are old change nothing: their days were noted before. No clock is read: who writes on
# purpose has set `touched_at` already.
TOUCH_DAYS = """
CREATE FUNCTION km_touch_days() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO touched_days (account_id, day, generation, touched_at)
    SELECT account_id, day, 1, day
    FROM (SELECT DISTINCT account_id, date_trunc('day', hour, 'UTC') AS day FROM changed) AS days
    WHERE NOT EXISTS (
        SELECT 1 FROM usage_days AS known
        WHERE known.account_id = days.account_id AND known.day = days.day AND known.hours_dropped_at IS NOT NULL)
    ORDER BY account_id, day
    ON CONFLICT (account_id, day) DO UPDATE SET generation = touched_days.generation + 1;
    RETURN NULL;
END $$;
CREATE TRIGGER inserted_hours_touch_days AFTER INSERT ON usage_hourly REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION km_touch_days();
CREATE TRIGGER updated_hours_touch_days AFTER UPDATE ON usage_hourly REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION km_touch_days();
CREATE TRIGGER deleted_hours_touch_days AFTER DELETE ON usage_hourly REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION km_touch_days();
"""


def upgrade() -> None:
    op.create_table(
        "touched_days",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("day", sa.DateTime(timezone=True), nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("touched_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(FULL_DAY, name=op.f("ck_touched_days_day")),
        sa.PrimaryKeyConstraint("account_id", "day", name=op.f("pk_touched_days")),
    )
    op.create_index(op.f("ix_touched_days_day"), "touched_days", ["day"])
    op.create_table(
        "usage_days",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("day", sa.DateTime(timezone=True), nullable=False),
        sa.Column("rolled_up_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("hours_dropped_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(FULL_DAY, name=op.f("ck_usage_days_day")),
        sa.CheckConstraint(
            "hours_dropped_at IS NULL OR rolled_up_at IS NOT NULL", name=op.f("ck_usage_days_hours_dropped_at")
        ),
        sa.PrimaryKeyConstraint("account_id", "day", name=op.f("pk_usage_days")),
    )
    op.create_index(
        "ix_usage_days_with_hours", "usage_days", ["day"], postgresql_where=sa.text("hours_dropped_at IS NULL")
    )
    op.create_index(
        "ix_usage_days_without_hours",
        "usage_days",
        ["day"],
        postgresql_where=sa.text("hours_dropped_at IS NOT NULL"),
    )
    op.create_table(
        "usage_daily",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("day", sa.DateTime(timezone=True), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in TEXTS),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("replayed", sa.Boolean(), nullable=False),
        sa.Column("amendment_id", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in SUMS),
        sa.Column("dimensions", JSONB(none_as_null=True), nullable=False),
        sa.Column("billable_dimensions", JSONB(none_as_null=True), nullable=False),
        sa.CheckConstraint(FULL_DAY, name=op.f("ck_usage_daily_day")),
        sa.PrimaryKeyConstraint(
            "account_id",
            "day",
            *TEXTS,
            "status",
            "outcome",
            "replayed",
            "amendment_id",
            name=op.f("pk_usage_daily"),
        ),
    )
    op.create_index(op.f("ix_usage_daily_phase_id_day"), "usage_daily", ["phase_id", "day"])
    op.create_index(op.f("ix_usage_daily_key_id_day"), "usage_daily", ["key_id", "day"])
    op.execute("""
        INSERT INTO touched_days (account_id, day, generation, touched_at)
        SELECT DISTINCT account_id, date_trunc('day', hour, 'UTC'), 1, now() FROM usage_hourly
    """)
    op.execute(TOUCH_DAYS)


def downgrade() -> None:
    op.execute("""
        DO $$ BEGIN
            IF EXISTS (SELECT 1 FROM usage_days WHERE hours_dropped_at IS NOT NULL) THEN
                RAISE EXCEPTION 'days whose hours were dropped have nothing but their daily figures: keep v0014';
            END IF;
        END $$
    """)
    for change in ("inserted", "updated", "deleted"):
        op.execute(f"DROP TRIGGER {change}_hours_touch_days ON usage_hourly")
    op.execute("DROP FUNCTION km_touch_days")
    op.drop_table("usage_daily")
    op.drop_table("usage_days")
    op.drop_table("touched_days")
