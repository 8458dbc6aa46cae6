"""What plans and subscriptions can say since caps: spend caps, concurrency, policies of late payment."""

revision = "v0005"
down_revision = "v0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
