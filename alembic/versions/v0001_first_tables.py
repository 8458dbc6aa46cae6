"""The first tables: accounts, catalogue, subscriptions, keys, usage, nodes, outbox, audit log."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "v0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    "subscription_phases",
    "prices",
    "plan_versions",
    "subscriptions",
    "plans",
    "api_keys",
    "usage_hours",
    "usage_hourly",
    "touched_hours",
    "shippers",
    "shipper_positions",
    "outbox",
    "gateway_nodes",
    "audit_log",
    "api_tokens",
    "api_products",
    "accounts",
)  # those that point at others first


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), server_default="active", nullable=False),
        sa.Column("currency", sa.Text(), server_default="USD", nullable=False),
        sa.Column("time_zone", sa.Text(), server_default="UTC", nullable=False),
        sa.Column("gateway_version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("ck_accounts_currency")),
        sa.CheckConstraint("status IN ('active', 'suspended', 'deleted')", name=op.f("ck_accounts_status")),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name=op.f("ck_accounts_name_length")),
        sa.CheckConstraint("gateway_version >= 1", name=op.f("ck_accounts_gateway_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
    )
    op.create_table(
        "api_products",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("routes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column(
            "endpoints",
            postgresql.JSONB(),
            server_default=sa.text("'[]'"),
            nullable=False,
        ),
        sa.Column(
            "route_units",
            postgresql.JSONB(),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column(
            "unit_headers",
            postgresql.JSONB(),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "CASE WHEN jsonb_typeof(endpoints) = 'array' THEN jsonb_array_length(endpoints) <= 500 ELSE false END",
            name=op.f("ck_api_products_endpoints"),
        ),
        sa.CheckConstraint("code ~ '^[a-z][a-z0-9_-]{0,47}$'", name=op.f("ck_api_products_code")),
        sa.CheckConstraint("jsonb_typeof(route_units) = 'object'", name=op.f("ck_api_products_route_units")),
        sa.CheckConstraint("jsonb_typeof(unit_headers) = 'object'", name=op.f("ck_api_products_unit_headers")),
        sa.CheckConstraint("cardinality(routes) >= 1", name=op.f("ck_api_products_routes")),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name=op.f("ck_api_products_name_length")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_products")),
        sa.UniqueConstraint("code", name=op.f("uq_api_products_code")),
    )
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "role IN ('owner', 'admin', 'finance', 'support', 'read_only')", name=op.f("ck_api_tokens_role")
        ),
        sa.CheckConstraint("token_hash ~ '^[0-9a-f]{64}$'", name=op.f("ck_api_tokens_token_hash")),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name=op.f("ck_api_tokens_name_length")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_api_tokens_token_hash")),
    )
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("entity_type", sa.Text(), nullable=False),
        sa.Column("entity_id", sa.Text(), nullable=False),
        sa.Column("before", postgresql.JSONB(), nullable=True),
        sa.Column("after", postgresql.JSONB(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index(op.f("ix_audit_log_at_id"), "audit_log", ["at", "id"], unique=False)
    op.create_index(
        op.f("ix_audit_log_entity_type_entity_id_at"),
        "audit_log",
        ["entity_type", "entity_id", "at"],
        unique=False,
    )
    op.create_table(
        "gateway_nodes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("admin_url", sa.Text(), nullable=False),
        sa.Column("config_hash", sa.Text(), nullable=True),
        sa.Column("pushed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.Text(), server_default="unknown", nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "status IN ('unknown', 'in_sync', 'drifted', 'unreachable')", name=op.f("ck_gateway_nodes_status")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gateway_nodes")),
        sa.UniqueConstraint("admin_url", name=op.f("uq_gateway_nodes_admin_url")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("entity_id", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_index(
        "ix_outbox_waiting", "outbox", ["topic", "id"], unique=False, postgresql_where=sa.text("done_at IS NULL")
    )
    op.create_table(
        "shipper_positions",
        sa.Column("shipper_id", sa.Text(), nullable=False),
        sa.Column("segment", sa.Text(), nullable=False),
        sa.Column("end_offset", sa.BigInteger(), nullable=False),
        sa.Column("shipped_up_to_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("end_offset >= 0", name=op.f("ck_shipper_positions_end_offset")),
        sa.PrimaryKeyConstraint("shipper_id", "segment", name=op.f("pk_shipper_positions")),
    )
    op.create_table(
        "shippers",
        sa.Column("shipper_id", sa.Text(), nullable=False),
        sa.Column("shipped_up_to_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("shipper_id", name=op.f("pk_shippers")),
    )
    op.create_table(
        "touched_hours",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("touched_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("mod(extract(epoch FROM hour), 3600) = 0", name=op.f("ck_touched_hours_hour")),
        sa.PrimaryKeyConstraint("account_id", "hour", name=op.f("pk_touched_hours")),
    )
    op.create_index(op.f("ix_touched_hours_touched_at"), "touched_hours", ["touched_at"], unique=False)
    op.create_table(
        "usage_hourly",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("phase_id", sa.Text(), nullable=False),
        sa.Column("product", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("billable_calls", sa.BigInteger(), nullable=False),
        sa.Column("billable_units", sa.BigInteger(), nullable=False),
        sa.Column("bytes_in", sa.BigInteger(), nullable=False),
        sa.Column("bytes_out", sa.BigInteger(), nullable=False),
        sa.Column("latency_ms_sum", sa.BigInteger(), nullable=False),
        sa.Column("gateway_ms_sum", sa.BigInteger(), nullable=False),
        sa.Column(
            "dimensions",
            postgresql.JSONB(),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column(
            "billable_dimensions",
            postgresql.JSONB(),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("mode IN ('', 'live', 'test')", name=op.f("ck_usage_hourly_mode")),
        sa.CheckConstraint("billable_calls BETWEEN 0 AND calls", name=op.f("ck_usage_hourly_billable_calls")),
        sa.CheckConstraint("billable_units BETWEEN 0 AND units", name=op.f("ck_usage_hourly_billable_units")),
        sa.CheckConstraint("mod(extract(epoch FROM hour), 3600) = 0", name=op.f("ck_usage_hourly_hour")),
        sa.PrimaryKeyConstraint(
            "account_id",
            "hour",
            "phase_id",
            "product",
            "mode",
            "key_id",
            "endpoint",
            "status",
            "outcome",
            name=op.f("pk_usage_hourly"),
        ),
    )
    op.create_index(op.f("ix_usage_hourly_key_id_hour"), "usage_hourly", ["key_id", "hour"], unique=False)
    op.create_index(op.f("ix_usage_hourly_phase_id_hour"), "usage_hourly", ["phase_id", "hour"], unique=False)
    op.create_table(
        "usage_hours",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("aggregated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sealed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("mod(extract(epoch FROM hour), 3600) = 0", name=op.f("ck_usage_hours_hour")),
        sa.CheckConstraint("revision >= 0", name=op.f("ck_usage_hours_revision")),
        sa.PrimaryKeyConstraint("account_id", "hour", name=op.f("pk_usage_hours")),
    )
    op.create_index(
        "ix_usage_hours_open", "usage_hours", ["hour"], unique=False, postgresql_where=sa.text("sealed_at IS NULL")
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.Text(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column(
            "windows",
            postgresql.JSONB(),
            server_default=sa.text("'[]'"),
            nullable=False,
        ),
        sa.Column("quota_units", sa.BigInteger(), nullable=True),
        sa.Column("ip_ranges", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.Text(), server_default="active", nullable=False),
        sa.Column("gateway_version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(status = 'revoked') = (revoked_at IS NOT NULL)", name=op.f("ck_api_keys_revoked_at")),
        sa.CheckConstraint("jsonb_typeof(windows) = 'array'", name=op.f("ck_api_keys_windows")),
        sa.CheckConstraint("key_hash ~ '^[0-9a-f]{64}$'", name=op.f("ck_api_keys_key_hash")),
        sa.CheckConstraint("mode IN ('live', 'test')", name=op.f("ck_api_keys_mode")),
        sa.CheckConstraint("status IN ('active', 'revoked')", name=op.f("ck_api_keys_status")),
        sa.CheckConstraint("cardinality(scopes) >= 1", name=op.f("ck_api_keys_scopes")),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name=op.f("ck_api_keys_name_length")),
        sa.CheckConstraint("gateway_version >= 1", name=op.f("ck_api_keys_gateway_version")),
        sa.CheckConstraint("quota_units > 0", name=op.f("ck_api_keys_quota_units")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_api_keys_account_id_accounts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_api_keys_key_hash")),
    )
    op.create_index(
        op.f("ix_api_keys_account_id_created_at"), "api_keys", ["account_id", "created_at"], unique=False
    )
    op.create_table(
        "plans",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("api_product_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("visibility", sa.Text(), server_default="public", nullable=False),
        sa.Column("recommended", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("code ~ '^[a-z][a-z0-9_-]{0,47}$'", name=op.f("ck_plans_code")),
        sa.CheckConstraint("visibility IN ('public', 'hidden')", name=op.f("ck_plans_visibility")),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name=op.f("ck_plans_name_length")),
        sa.ForeignKeyConstraint(
            ["api_product_id"], ["api_products.id"], name=op.f("fk_plans_api_product_id_api_products")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plans")),
        sa.UniqueConstraint("code", name=op.f("uq_plans_code")),
    )
    op.create_index(
        op.f("ix_plans_api_product_id_position"), "plans", ["api_product_id", "position"], unique=False
    )
    op.create_index(
        "uq_plans_recommended",
        "plans",
        ["api_product_id"],
        unique=True,
        postgresql_where=sa.text("recommended AND archived_at IS NULL"),
    )
    op.create_table(
        "subscriptions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("api_product_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("anchor_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("interval", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("canceled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "overrides",
            postgresql.JSONB(),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("interval IN ('month', 'year')", name=op.f("ck_subscriptions_interval")),
        sa.CheckConstraint("jsonb_typeof(overrides) = 'object'", name=op.f("ck_subscriptions_overrides")),
        sa.CheckConstraint(
            "status IN ('trialing', 'active', 'past_due', 'paused', 'canceled', 'ended')",
            name=op.f("ck_subscriptions_status"),
        ),
        sa.CheckConstraint(
            "status NOT IN ('canceled', 'ended') OR ends_at IS NOT NULL",
            name=op.f("ck_subscriptions_over_has_end"),
        ),
        sa.CheckConstraint("ends_at >= started_at", name=op.f("ck_subscriptions_ends_at")),
        sa.CheckConstraint(
            "mod(extract(epoch FROM anchor_at), 3600) = 0", name=op.f("ck_subscriptions_anchor_hour")
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_subscriptions_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(
            ["api_product_id"], ["api_products.id"], name=op.f("fk_subscriptions_api_product_id_api_products")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subscriptions")),
    )
    op.create_index(op.f("ix_subscriptions_account_id"), "subscriptions", ["account_id"], unique=False)
    op.create_index(
        "ix_subscriptions_ending",
        "subscriptions",
        ["ends_at"],
        unique=False,
        postgresql_where=sa.text("status NOT IN ('canceled', 'ended') AND ends_at IS NOT NULL"),
    )
    op.create_index(
        "uq_subscriptions_live",
        "subscriptions",
        ["account_id", "api_product_id"],
        unique=True,
        postgresql_where=sa.text("status NOT IN ('canceled', 'ended')"),
    )
    op.create_table(
        "plan_versions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("plan_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), server_default="draft", nullable=False),
        sa.Column("interval", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("quota_units", sa.BigInteger(), nullable=True),
        sa.Column("quota_hard", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "windows",
            postgresql.JSONB(),
            server_default=sa.text("'[]'"),
            nullable=False,
        ),
        sa.Column("entitlements", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("redis_down", sa.Text(), server_default="open", nullable=False),
        sa.Column("billable_statuses", postgresql.JSONB(), nullable=True),
        sa.Column("by_quote", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status = 'draft') = (published_at IS NULL)", name=op.f("ck_plan_versions_published_at")
        ),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("ck_plan_versions_currency")),
        sa.CheckConstraint("interval IN ('month', 'year')", name=op.f("ck_plan_versions_interval")),
        sa.CheckConstraint("jsonb_typeof(windows) = 'array'", name=op.f("ck_plan_versions_windows")),
        sa.CheckConstraint("redis_down IN ('open', 'closed')", name=op.f("ck_plan_versions_redis_down")),
        sa.CheckConstraint("status IN ('draft', 'published', 'superseded')", name=op.f("ck_plan_versions_status")),
        sa.CheckConstraint("quota_units > 0", name=op.f("ck_plan_versions_quota_units")),
        sa.CheckConstraint("quota_units IS NOT NULL OR NOT quota_hard", name=op.f("ck_plan_versions_quota_hard")),
        sa.CheckConstraint("version >= 1", name=op.f("ck_plan_versions_version")),
        sa.ForeignKeyConstraint(["plan_id"], ["plans.id"], name=op.f("fk_plan_versions_plan_id_plans")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plan_versions")),
        sa.UniqueConstraint("plan_id", "version", name=op.f("uq_plan_versions_plan_id_version")),
    )
    op.create_index(
        "uq_plan_versions_draft",
        "plan_versions",
        ["plan_id"],
        unique=True,
        postgresql_where=sa.text("status = 'draft'"),
    )
    op.create_index(
        "uq_plan_versions_published",
        "plan_versions",
        ["plan_id"],
        unique=True,
        postgresql_where=sa.text("status = 'published'"),
    )
    op.create_table(
        "prices",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("plan_version_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("meter", sa.Text(), nullable=True),
        sa.Column("params", postgresql.JSONB(), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.CheckConstraint("(model = 'flat') = (meter IS NULL)", name=op.f("ck_prices_meter")),
        sa.CheckConstraint("jsonb_typeof(params) = 'object'", name=op.f("ck_prices_params")),
        sa.CheckConstraint(
            "model IN ('flat', 'per_unit', 'overage', 'graduated', 'volume', 'package')",
            name=op.f("ck_prices_model"),
        ),
        sa.CheckConstraint("position >= 0", name=op.f("ck_prices_position")),
        sa.ForeignKeyConstraint(
            ["plan_version_id"], ["plan_versions.id"], name=op.f("fk_prices_plan_version_id_plan_versions")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prices")),
        sa.UniqueConstraint("plan_version_id", "position", name=op.f("uq_prices_plan_version_id_position")),
    )
    op.create_table(
        "subscription_phases",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("plan_version_id", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("ends_at > starts_at", name=op.f("ck_subscription_phases_ends_at")),
        sa.ForeignKeyConstraint(
            ["plan_version_id"],
            ["plan_versions.id"],
            name=op.f("fk_subscription_phases_plan_version_id_plan_versions"),
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscriptions.id"],
            name=op.f("fk_subscription_phases_subscription_id_subscriptions"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subscription_phases")),
        sa.UniqueConstraint(
            "subscription_id", "starts_at", name=op.f("uq_subscription_phases_subscription_id_starts_at")
        ),
    )
    op.create_index(
        op.f("ix_subscription_phases_plan_version_id"), "subscription_phases", ["plan_version_id"], unique=False
    )
    op.create_index(
        "ix_subscription_phases_waiting",
        "subscription_phases",
        ["starts_at"],
        unique=False,
        postgresql_where=sa.text("applied_at IS NULL"),
    )
    op.create_index(
        "uq_subscription_phases_open",
        "subscription_phases",
        ["subscription_id"],
        unique=True,
        postgresql_where=sa.text("ends_at IS NULL"),
    )


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)
    # v0006 leaves it to whoever goes on below
    op.execute("DROP TABLE IF EXISTS replay_hours")
