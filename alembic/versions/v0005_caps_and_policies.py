"""What plans and subscriptions can say since caps: spend caps, concurrency, policies of late payment."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "v0005"
down_revision = "v0004"
branch_labels = None
depends_on = None

LIVE = "status NOT IN ('canceled', 'ended')"
CHECKS = (
    ("api_products", "unit_maximums", "jsonb_typeof(unit_maximums) = 'object'"),
    (
        "plan_versions",
        "quota_cap_units",
        "quota_cap_units IS NULL OR (NOT quota_hard AND coalesce(quota_cap_units > quota_units, false))",
    ),
    ("plan_versions", "concurrency_limit", "concurrency_limit > 0"),
    (
        "plan_versions",
        "concurrency_lease_ms",
        "(concurrency_limit IS NULL) = (concurrency_lease_ms IS NULL) AND concurrency_lease_ms > 0",
    ),
    ("plan_versions", "on_past_due", "on_past_due IN ('serve', 'refuse')"),
    ("subscriptions", "spend_cap_minor", "spend_cap_minor >= 0"),
    ("subscriptions", "spend_cap_due_at", "(spend_cap_minor IS NULL) = (spend_cap_due_at IS NULL)"),
)


def upgrade() -> None:
    op.add_column(
        "api_products",
        sa.Column("unit_maximums", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
    )
    op.add_column(
        "api_products",
        sa.Column("replay_header", sa.Text(), server_default="idempotent-replayed", nullable=False),
    )
    op.add_column("plan_versions", sa.Column("quota_cap_units", sa.BigInteger(), nullable=True))
    op.add_column("plan_versions", sa.Column("concurrency_limit", sa.Integer(), nullable=True))
    op.add_column("plan_versions", sa.Column("concurrency_lease_ms", sa.Integer(), nullable=True))
    op.add_column("plan_versions", sa.Column("on_past_due", sa.Text(), server_default="serve", nullable=False))
    op.add_column("subscriptions", sa.Column("spend_cap_minor", sa.BigInteger(), nullable=True))
    op.add_column("subscriptions", sa.Column("spend_cap_due_at", sa.DateTime(timezone=True), nullable=True))
    for table, name, condition in CHECKS:
        op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, condition)
    op.create_index(
        "ix_subscriptions_spend_cap_due",
        "subscriptions",
        ["spend_cap_due_at"],
        postgresql_where=sa.text(f"{LIVE} AND spend_cap_due_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_subscriptions_spend_cap_due", table_name="subscriptions")
    for table, name, _ in CHECKS:
        op.drop_constraint(op.f(f"ck_{table}_{name}"), table, type_="check")
    for table, columns in (
        ("subscriptions", ("spend_cap_due_at", "spend_cap_minor")),
        ("plan_versions", ("on_past_due", "concurrency_lease_ms", "concurrency_limit", "quota_cap_units")),
        ("api_products", ("replay_header", "unit_maximums")),
    ):
        for column in columns:
            op.drop_column(table, column)
