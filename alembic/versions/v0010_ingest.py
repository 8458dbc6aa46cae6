"""The role that only reports application events."""

from alembic import op

revision = "v0010"
down_revision = "v0009"
branch_labels = None
depends_on = None

ROLES = ("owner", "admin", "finance", "support", "read_only")


def upgrade() -> None:
    op.drop_constraint(op.f("ck_api_tokens_role"), "api_tokens")
    op.create_check_constraint(op.f("ck_api_tokens_role"), "api_tokens", f"role IN {(*ROLES, 'ingest')}")


def downgrade() -> None:
    op.execute("DELETE FROM api_tokens WHERE role = 'ingest'")
    op.drop_constraint(op.f("ck_api_tokens_role"), "api_tokens")
    op.create_check_constraint(op.f("ck_api_tokens_role"), "api_tokens", f"role IN {ROLES}")
