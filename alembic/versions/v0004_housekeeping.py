"""Indexes for what is done all the time: forgetting done news, finding positions that moved lately."""

import sqlalchemy as sa
from alembic import op

revision = "v0004"
down_revision = "v0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_outbox_done", "outbox", ["done_at"], postgresql_where=sa.text("done_at IS NOT NULL"))
    op.create_index(op.f("ix_shipper_positions_updated_at"), "shipper_positions", ["updated_at"])


def downgrade() -> None:
    op.drop_index(op.f("ix_shipper_positions_updated_at"), table_name="shipper_positions")
    op.drop_index("ix_outbox_done", table_name="outbox")
