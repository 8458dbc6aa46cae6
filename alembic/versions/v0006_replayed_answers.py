"""What rollups know of answers that an upstream repeated, and of the time that upstreams took."""

import sqlalchemy as sa
from alembic import op

revision = "v0006"
down_revision = "v0005"
branch_labels = None
depends_on = None

FULL_HOUR = "mod(extract(epoch FROM hour), 3600) = 0"
ROW_KEY = ["account_id", "hour", "phase_id", "product", "mode", "key_id", "endpoint", "status", "outcome"]
PRIMARY_KEY = "pk_usage_hourly"

# The older rollup has no rows of their own for repeated answers: their hours are recomputed whole.
RECOMPUTE_HOURS_WITH_REPLAYS = """
INSERT INTO touched_hours (account_id, hour, generation, touched_at)
SELECT DISTINCT account_id, hour, 1, now() FROM usage_hourly WHERE replayed
ON CONFLICT (account_id, hour) DO UPDATE SET generation = touched_hours.generation + 1
"""


def upgrade() -> None:
    op.add_column("usage_hourly", sa.Column("replayed", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column(
        "usage_hourly", sa.Column("upstream_ms_sum", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    )
    op.drop_constraint(op.f(PRIMARY_KEY), "usage_hourly", type_="primary")
    op.create_primary_key(op.f(PRIMARY_KEY), "usage_hourly", [*ROW_KEY, "replayed"])
    op.create_check_constraint(
        op.f("ck_usage_hourly_replayed"), "usage_hourly", "NOT (replayed AND billable_calls > 0)"
    )
    op.create_table(
        "replay_hours",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(FULL_HOUR, name=op.f("ck_replay_hours_hour")),
        sa.PrimaryKeyConstraint("account_id", "hour", name=op.f("pk_replay_hours")),
    )
    op.create_table(
        "unmatched_replays",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("call_hash", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("occurred_at_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(FULL_HOUR, name=op.f("ck_unmatched_replays_hour")),
        sa.PrimaryKeyConstraint("account_id", "hour", "call_hash", name=op.f("pk_unmatched_replays")),
    )


def downgrade() -> None:
    op.drop_table("unmatched_replays")
    op.drop_table("replay_hours")
    op.execute(RECOMPUTE_HOURS_WITH_REPLAYS)
    op.execute("DELETE FROM usage_hourly WHERE replayed")
    op.drop_constraint(op.f("ck_usage_hourly_replayed"), "usage_hourly", type_="check")
    op.drop_constraint(op.f(PRIMARY_KEY), "usage_hourly", type_="primary")
    op.create_primary_key(op.f(PRIMARY_KEY), "usage_hourly", ROW_KEY)
    op.drop_column("usage_hourly", "upstream_ms_sum")
    op.drop_column("usage_hourly", "replayed")
