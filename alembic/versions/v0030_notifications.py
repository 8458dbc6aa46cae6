"""Mail on its way."""

revision = "v0030"
down_revision = "v0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
