"""Customers, checkouts and subscriptions at Stripe."""

revision = "v0026"
down_revision = "v0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
