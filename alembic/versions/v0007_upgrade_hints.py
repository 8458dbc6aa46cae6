"""Which plan would have fitted a subscription's last 30 days; keys and accounts that come from elsewhere."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "v0007"
down_revision = "v0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("accounts", sa.Column("external_id", sa.Text(), nullable=True))
    op.create_unique_constraint(op.f("uq_accounts_external_id"), "accounts", ["external_id"])
    op.create_check_constraint(
        op.f("ck_accounts_external_id"), "accounts", "char_length(external_id) BETWEEN 1 AND 200"
    )
    op.add_column("api_keys", sa.Column("origin", sa.Text(), server_default="issued", nullable=False))
    op.alter_column("api_keys", "hint", existing_type=sa.Text(), nullable=True)
    op.create_check_constraint(op.f("ck_api_keys_origin"), "api_keys", "origin IN ('issued', 'imported')")
    op.create_check_constraint(op.f("ck_api_keys_hint"), "api_keys", "hint IS NOT NULL OR origin = 'imported'")
    op.create_table(
        "upgrade_hints",
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("computed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("basis", sa.Text(), nullable=False),
        sa.Column("fitting_plan", sa.Text(), nullable=True),
        sa.Column("demand", JSONB(none_as_null=True), nullable=False),
        sa.Column("offers", JSONB(none_as_null=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscriptions.id"],
            name=op.f("fk_upgrade_hints_subscription_id_subscriptions"),
        ),
        sa.PrimaryKeyConstraint("subscription_id", name=op.f("pk_upgrade_hints")),
    )


def downgrade() -> None:
    op.drop_table("upgrade_hints")
    # an imported key has no hint where it was short, and the older form needs one
    op.execute("UPDATE api_keys SET hint = '' WHERE hint IS NULL")
    op.drop_constraint(op.f("ck_api_keys_hint"), "api_keys")
    op.drop_constraint(op.f("ck_api_keys_origin"), "api_keys")
    op.alter_column("api_keys", "hint", existing_type=sa.Text(), nullable=False)
    op.drop_column("api_keys", "origin")
    op.drop_constraint(op.f("ck_accounts_external_id"), "accounts")
    op.drop_constraint(op.f("uq_accounts_external_id"), "accounts")
    op.drop_column("accounts", "external_id")
