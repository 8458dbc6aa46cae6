"""Sinks for events and rollups: other billing systems, files by day."""

import sqlalchemy as sa
from alembic import op

revision = "v0013"
down_revision = "v0012"
branch_labels = None
depends_on = None

FULL_HOUR = "mod(extract(epoch FROM hour), 3600) = 0"


def upgrade() -> None:
    op.create_table(
        "sinks",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("file_format", sa.Text(), nullable=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("last_error_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('http', 'files')", name=op.f("ck_sinks_kind")),
        sa.CheckConstraint("content IN ('events', 'rollups')", name=op.f("ck_sinks_content")),
        sa.CheckConstraint("(kind = 'http') = (url IS NOT NULL)", name=op.f("ck_sinks_url")),
        sa.CheckConstraint("(kind = 'files') = (file_format IS NOT NULL)", name=op.f("ck_sinks_file_format")),
        sa.CheckConstraint("mod(extract(epoch FROM since), 3600) = 0", name=op.f("ck_sinks_since")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sinks")),
    )
    op.create_index(
        "uq_sinks_name", "sinks", ["name"], unique=True, postgresql_where=sa.text("removed_at IS NULL")
    )
    op.create_table(
        "sink_hours",
        sa.Column("sink_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("after_ms", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("after_id", sa.Text(), server_default="", nullable=False),
        sa.Column("records", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint(FULL_HOUR, name=op.f("ck_sink_hours_hour")),
        sa.CheckConstraint("state IN ('waiting', 'sent', 'failed')", name=op.f("ck_sink_hours_state")),
        sa.ForeignKeyConstraint(["sink_id"], ["sinks.id"], name=op.f("fk_sink_hours_sink_id_sinks")),
        sa.PrimaryKeyConstraint("sink_id", "account_id", "hour", name=op.f("pk_sink_hours")),
    )
    for state in ("waiting", "failed"):
        op.create_index(
            f"ix_sink_hours_{state}",
            "sink_hours",
            ["sink_id", "hour", "account_id"],
            postgresql_where=sa.text(f"state = '{state}'"),
        )
    op.create_table(
        "sink_days",
        sa.Column("sink_id", sa.Text(), nullable=False),
        sa.Column("day", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("records", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("written_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("mod(extract(epoch FROM day), 86400) = 0", name=op.f("ck_sink_days_day")),
        sa.ForeignKeyConstraint(["sink_id"], ["sinks.id"], name=op.f("fk_sink_days_sink_id_sinks")),
        sa.PrimaryKeyConstraint("sink_id", "day", name=op.f("pk_sink_days")),
    )
    op.create_index("ix_usage_hours_sealed_at", "usage_hours", ["sealed_at"])


def downgrade() -> None:
    op.drop_index("ix_usage_hours_sealed_at", "usage_hours")
    op.drop_table("sink_days")
    op.drop_table("sink_hours")
    op.drop_table("sinks")
