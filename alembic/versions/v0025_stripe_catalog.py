"""What of the catalogue lies at Stripe."""

import sqlalchemy as sa
from alembic import op

revision = "v0025"
down_revision = "v0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "stripe_setup",
        sa.Column("installation", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("webhook_endpoint_id", sa.Text(), nullable=True),
        sa.Column("thin_destination_id", sa.Text(), nullable=True),
        sa.Column("portal_configuration_id", sa.Text(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("installation", name=op.f("pk_stripe_setup")),
    )
    op.create_table(
        "stripe_meters",
        sa.Column("meter_id", sa.Text(), nullable=False),
        sa.Column("api_product_id", sa.Text(), nullable=False),
        sa.Column("meter", sa.Text(), nullable=False),
        sa.Column("event_name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("pushed_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["api_product_id"], ["api_products.id"], name=op.f("fk_stripe_meters_api_product_id_api_products")
        ),
        sa.PrimaryKeyConstraint("meter_id", name=op.f("pk_stripe_meters")),
        sa.UniqueConstraint("api_product_id", "meter", name=op.f("uq_stripe_meters_api_product_id_meter")),
        sa.UniqueConstraint("event_name", name=op.f("uq_stripe_meters_event_name")),
    )
    op.create_table(
        "stripe_products",
        sa.Column("plan_id", sa.Text(), nullable=False),
        sa.Column("product_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("pushed_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["plan_id"], ["plans.id"], name=op.f("fk_stripe_products_plan_id_plans")),
        sa.PrimaryKeyConstraint("plan_id", name=op.f("pk_stripe_products")),
        sa.UniqueConstraint("product_id", name=op.f("uq_stripe_products_product_id")),
    )
    op.create_table(
        "stripe_prices",
        sa.Column("price_id", sa.Text(), nullable=False),
        sa.Column("plan_version_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("product_id", sa.Text(), nullable=False),
        sa.Column("meter_id", sa.Text(), nullable=True),
        sa.Column("lookup_key", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("pushed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("(kind = 'metered') = (meter_id IS NOT NULL)", name=op.f("ck_stripe_prices_meter_id")),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("ck_stripe_prices_currency")),
        sa.CheckConstraint(
            "kind IN ('flat', 'metered', 'setup_fee', 'carrier')", name=op.f("ck_stripe_prices_kind")
        ),
        sa.CheckConstraint("position >= 0", name=op.f("ck_stripe_prices_position")),
        sa.ForeignKeyConstraint(
            ["meter_id"], ["stripe_meters.meter_id"], name=op.f("fk_stripe_prices_meter_id_stripe_meters")
        ),
        sa.ForeignKeyConstraint(
            ["plan_version_id"], ["plan_versions.id"], name=op.f("fk_stripe_prices_plan_version_id_plan_versions")
        ),
        sa.ForeignKeyConstraint(
            ["product_id"],
            ["stripe_products.product_id"],
            name=op.f("fk_stripe_prices_product_id_stripe_products"),
        ),
        sa.PrimaryKeyConstraint("price_id", name=op.f("pk_stripe_prices")),
        sa.UniqueConstraint("lookup_key", name=op.f("uq_stripe_prices_lookup_key")),
        sa.UniqueConstraint(
            "plan_version_id",
            "currency",
            "position",
            name=op.f("uq_stripe_prices_plan_version_id_currency_position"),
        ),
    )
    op.create_index(op.f("ix_stripe_prices_meter_id"), "stripe_prices", ["meter_id"], unique=False)
    op.create_table(
        "stripe_pushes",
        sa.Column("plan_version_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("wanted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("pushed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'pushed') = (pushed_at IS NOT NULL)", name=op.f("ck_stripe_pushes_pushed_at")
        ),
        sa.CheckConstraint("state IN ('waiting', 'pushed', 'refused')", name=op.f("ck_stripe_pushes_state")),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_stripe_pushes_attempts")),
        sa.ForeignKeyConstraint(
            ["plan_version_id"], ["plan_versions.id"], name=op.f("fk_stripe_pushes_plan_version_id_plan_versions")
        ),
        sa.PrimaryKeyConstraint("plan_version_id", name=op.f("pk_stripe_pushes")),
    )
    op.create_index(
        "ix_stripe_pushes_waiting",
        "stripe_pushes",
        ["next_try_at"],
        unique=False,
        postgresql_where=sa.text("state = 'waiting'"),
    )


def downgrade() -> None:
    op.drop_index(
        "ix_stripe_pushes_waiting", table_name="stripe_pushes", postgresql_where=sa.text("state = 'waiting'")
    )
    op.drop_table("stripe_pushes")
    op.drop_index(op.f("ix_stripe_prices_meter_id"), table_name="stripe_prices")
    op.drop_table("stripe_prices")
    op.drop_table("stripe_products")
    op.drop_table("stripe_meters")
    op.drop_table("stripe_setup")
