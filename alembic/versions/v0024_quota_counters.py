"""How the gateway counts quota when plans change."""

revision = "v0024"
down_revision = "v0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
