"""What was compared, and what differs."""

revision = "v0032"
down_revision = "v0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
