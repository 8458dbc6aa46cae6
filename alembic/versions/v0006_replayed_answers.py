"""What rollups know of answers that an upstream repeated, and of the time that upstreams took.

Going down, `replay_hours` stays: nothing else in this database says which hours hold replays. The older code bills
replays as any call. Going up again, these hours are done again, and come out as before. Calls that the older code
collected meanwhile carry no flag `replayed`: they stay billed.
"""

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

# Of an earlier time at this version: what the older code wrote of these hours bills replays.
RECOMPUTE_REPLAY_HOURS = """
INSERT INTO touched_hours (account_id, hour, generation, touched_at)
SELECT account_id, hour, 1, now() FROM replay_hours ORDER BY account_id, hour
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
        if_not_exists=True,
    )
    op.execute(RECOMPUTE_REPLAY_HOURS)
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
    op.execute(RECOMPUTE_HOURS_WITH_REPLAYS)
    op.execute("DELETE FROM usage_hourly WHERE replayed")
    op.drop_constraint(op.f("ck_usage_hourly_replayed"), "usage_hourly", type_="check")
    op.drop_constraint(op.f(PRIMARY_KEY), "usage_hourly", type_="primary")
    op.create_primary_key(op.f(PRIMARY_KEY), "usage_hourly", ROW_KEY)
    op.drop_column("usage_hourly", "upstream_ms_sum")
    op.drop_column("usage_hourly", "replayed")
