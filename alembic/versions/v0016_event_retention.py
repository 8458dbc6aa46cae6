"""How long single requests are kept, by plan version."""

import sqlalchemy as sa
from alembic import op

revision = "v0016"
down_revision = "v0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("plan_versions", sa.Column("event_retention_days", sa.Integer(), nullable=True))
    op.create_check_constraint(
        op.f("ck_plan_versions_event_retention_days"), "plan_versions", "event_retention_days BETWEEN 90 AND 3660"
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_plan_versions_event_retention_days"), "plan_versions")
    op.drop_column("plan_versions", "event_retention_days")
