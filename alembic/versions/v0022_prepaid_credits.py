"""Credit grants, reservations and draws."""

revision = "v0022"
down_revision = "v0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
