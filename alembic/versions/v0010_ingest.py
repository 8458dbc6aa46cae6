"""Reporting application events: its role, the ids that are known, events on their way into the event store."""

import sqlalchemy as sa
from alembic import op

revision = "v0010"
down_revision = "v0009"
branch_labels = None
depends_on = None

ROLES = ("owner", "admin", "finance", "support", "read_only")
# What was accepted is in nobody else's hands yet: it must not go with the table.
REFUSE_WHILE_EVENTS_WAIT = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM ingest_batches) THEN
        RAISE EXCEPTION 'ingest_batches holds accepted events that are not in the event store yet';
    END IF;
END $$
"""
FULL_HOUR = "mod(extract(epoch FROM hour), 3600) = 0"


def upgrade() -> None:
    op.drop_constraint(op.f("ck_api_tokens_role"), "api_tokens")
    op.create_check_constraint(op.f("ck_api_tokens_role"), "api_tokens", f"role IN {(*ROLES, 'ingest')}")
    op.create_table(
        "ingested_ids",
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(FULL_HOUR, name=op.f("ck_ingested_ids_hour")),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_ingested_ids")),
    )
    op.create_index(
        op.f("ix_ingested_ids_first_seen_at"), "ingested_ids", ["first_seen_at"], postgresql_using="brin"
    )
    op.create_table(
        "ingest_batches",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("spoiled_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ingest_batches")),
    )


def downgrade() -> None:
    op.execute(REFUSE_WHILE_EVENTS_WAIT)
    op.drop_table("ingest_batches")
    op.drop_table("ingested_ids")
    op.execute("DELETE FROM api_tokens WHERE role = 'ingest'")
    op.drop_constraint(op.f("ck_api_tokens_role"), "api_tokens")
    op.create_check_constraint(op.f("ck_api_tokens_role"), "api_tokens", f"role IN {ROLES}")
