"""Ranges of spool segments that were stored ahead of a gap."""

import sqlalchemy as sa
from alembic import op

revision = "v0003"
down_revision = "v0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "shipper_ranges",
        sa.Column("shipper_id", sa.Text(), nullable=False),
        sa.Column("segment", sa.Text(), nullable=False),
        sa.Column("start_offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("end_offset", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "start_offset >= 0 AND end_offset > start_offset", name=op.f("ck_shipper_ranges_offsets")
        ),
        sa.PrimaryKeyConstraint("shipper_id", "segment", "start_offset", name=op.f("pk_shipper_ranges")),
    )


def downgrade() -> None:
    op.drop_table("shipper_ranges")
