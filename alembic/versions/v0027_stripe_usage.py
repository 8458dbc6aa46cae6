"""Usage on its way to Stripe."""

revision = "v0027"
down_revision = "v0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
