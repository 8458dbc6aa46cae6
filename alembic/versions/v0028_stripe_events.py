"""Events that Stripe has told us of."""

import sqlalchemy as sa
from alembic import op

revision = "v0028"
down_revision = "v0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "stripe_event_reads",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("read_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_stripe_event_reads")),
    )
    op.create_table(
        "stripe_events",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=True),
        sa.Column("object_id", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deliveries", sa.Integer(), nullable=False),
        sa.Column("last_delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("handled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "source IN ('webhook', 'list', 'replay', 'resync')", name=op.f("ck_stripe_events_source")
        ),
        sa.CheckConstraint("state = 'ignored' OR kind IS NOT NULL", name=op.f("ck_stripe_events_read_or_ignored")),
        sa.CheckConstraint("state IN ('waiting', 'done', 'ignored', 'dead')", name=op.f("ck_stripe_events_state")),
        sa.CheckConstraint(
            "(kind IS NULL) = (object_id IS NULL)", name=op.f("ck_stripe_events_kind_names_object")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stripe_events")),
    )
    op.create_index(op.f("ix_stripe_events_created_at_id"), "stripe_events", ["created_at", "id"], unique=False)
    op.create_index(
        "ix_stripe_events_dead",
        "stripe_events",
        ["received_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'dead'"),
    )
    op.create_index(
        op.f("ix_stripe_events_next_attempt_at"),
        "stripe_events",
        ["next_attempt_at"],
        unique=False,
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_index(
        op.f("ix_stripe_events_object_id_created_at"), "stripe_events", ["object_id", "created_at"], unique=False
    )
    op.create_index(op.f("ix_stripe_events_received_at_id"), "stripe_events", ["received_at", "id"], unique=False)
    op.create_index(
        "ix_stripe_events_with_body",
        "stripe_events",
        ["received_at"],
        unique=False,
        postgresql_where=sa.text("body IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_table("stripe_events")
    op.drop_table("stripe_event_reads")
