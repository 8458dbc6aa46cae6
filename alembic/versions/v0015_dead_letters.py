"""Dead letters that were looked at: replayed or dismissed."""

import sqlalchemy as sa
from alembic import op

revision = "v0015"
down_revision = "v0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "handled_dead_letters",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("handled_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "state IN ('open', 'replayed', 'dismissed')", name=op.f("ck_handled_dead_letters_state")
        ),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_handled_dead_letters_attempts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_handled_dead_letters")),
    )


def downgrade() -> None:
    op.drop_table("handled_dead_letters")
