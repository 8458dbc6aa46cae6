"""Payments that failed, and what follows."""

revision = "v0031"
down_revision = "v0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
