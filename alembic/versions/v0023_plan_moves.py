"""Comparisons of plans and migrations of many subscriptions."""

revision = "v0023"
down_revision = "v0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
