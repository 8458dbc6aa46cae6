"""What of the catalogue lies at Stripe."""

revision = "v0025"
down_revision = "v0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
