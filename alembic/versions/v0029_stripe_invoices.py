"""Stripe's invoices, as we know them."""

revision = "v0029"
down_revision = "v0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
