"""Events that Stripe has told us of."""

revision = "v0028"
down_revision = "v0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
