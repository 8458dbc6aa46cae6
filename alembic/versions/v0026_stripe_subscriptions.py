"""Customers, checkouts and subscriptions at Stripe."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "v0026"
down_revision = "v0025"
branch_labels = None
depends_on = None

# a first payment may be of an invoice of Stripe's
_OF_INVOICES = (
    ("first_payments", "fk_first_payments_invoice_id_invoices"),
    ("referrals", "fk_referrals_invoice_id_invoices"),
)


def upgrade() -> None:
    for table, constraint in _OF_INVOICES:
        op.drop_constraint(constraint, table, type_="foreignkey")
    op.create_table(
        "stripe_balance_credits",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("problem", sa.Text(), server_default="", nullable=False),
        sa.Column("transaction_id", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state <> 'done' OR transaction_id IS NOT NULL", name=op.f("ck_stripe_balance_credits_transaction_id")
        ),
        sa.CheckConstraint(
            "state IN ('wanted', 'asked', 'done', 'refused')", name=op.f("ck_stripe_balance_credits_state")
        ),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_stripe_balance_credits_amount_minor")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_stripe_balance_credits_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stripe_balance_credits")),
        sa.UniqueConstraint("source", name=op.f("uq_stripe_balance_credits_source")),
        sa.UniqueConstraint("transaction_id", name=op.f("uq_stripe_balance_credits_transaction_id")),
    )
    op.create_index(
        op.f("ix_stripe_balance_credits_account_id"), "stripe_balance_credits", ["account_id"], unique=False
    )
    op.create_index(
        "ix_stripe_balance_credits_unfinished",
        "stripe_balance_credits",
        ["next_try_at"],
        unique=False,
        postgresql_where=sa.text("state IN ('wanted', 'asked')"),
    )
    op.create_table(
        "stripe_coupons",
        sa.Column("coupon_id", sa.Text(), nullable=False),
        sa.Column("interval", sa.Text(), nullable=False),
        sa.Column("stripe_coupon_id", sa.Text(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("interval IN ('month', 'year')", name=op.f("ck_stripe_coupons_interval")),
        sa.ForeignKeyConstraint(["coupon_id"], ["coupons.id"], name=op.f("fk_stripe_coupons_coupon_id_coupons")),
        sa.PrimaryKeyConstraint("coupon_id", "interval", name=op.f("pk_stripe_coupons")),
        sa.UniqueConstraint("stripe_coupon_id", name=op.f("uq_stripe_coupons_stripe_coupon_id")),
    )
    op.create_table(
        "stripe_customers",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("digest", sa.Text(), server_default="", nullable=False),
        sa.Column("tax_id", sa.Text(), nullable=True),
        sa.Column("problem", sa.Text(), server_default="", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("balance_minor", sa.BigInteger(), nullable=True),
        sa.Column("balance_currency", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("attempt >= 1", name=op.f("ck_stripe_customers_attempt")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_stripe_customers_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_stripe_customers")),
        sa.UniqueConstraint("customer_id", name=op.f("uq_stripe_customers_customer_id")),
    )
    op.create_index(
        "ix_stripe_customers_told_at",
        "stripe_customers",
        ["told_at"],
        unique=False,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "stripe_checkouts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("api_product_id", sa.Text(), nullable=False),
        sa.Column("plan_version_id", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("trial_ends_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("trial_days", sa.Integer(), nullable=True),
        sa.Column("coupon_id", sa.Text(), nullable=True),
        sa.Column("promotion_code_id", sa.Text(), nullable=True),
        sa.Column("founding_offer_id", sa.Text(), nullable=True),
        sa.Column("success_url", sa.Text(), nullable=False),
        sa.Column("cancel_url", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("stripe_id", sa.Text(), nullable=True),
        sa.Column("subscription_id", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("problem_code", sa.Text(), server_default="", nullable=False),
        sa.Column("problem", sa.Text(), server_default="", nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state <> 'completed' OR subscription_id IS NOT NULL", name=op.f("ck_stripe_checkouts_subscription_id")
        ),
        sa.CheckConstraint(
            "state <> 'open' OR session_id IS NOT NULL", name=op.f("ck_stripe_checkouts_session_id")
        ),
        sa.CheckConstraint(
            "state IN ('wanted', 'open', 'completed', 'expired', 'refused')",
            name=op.f("ck_stripe_checkouts_state"),
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_stripe_checkouts_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(
            ["api_product_id"], ["api_products.id"], name=op.f("fk_stripe_checkouts_api_product_id_api_products")
        ),
        sa.ForeignKeyConstraint(["coupon_id"], ["coupons.id"], name=op.f("fk_stripe_checkouts_coupon_id_coupons")),
        sa.ForeignKeyConstraint(
            ["founding_offer_id"],
            ["founding_offers.id"],
            name=op.f("fk_stripe_checkouts_founding_offer_id_founding_offers"),
        ),
        sa.ForeignKeyConstraint(
            ["plan_version_id"],
            ["plan_versions.id"],
            name=op.f("fk_stripe_checkouts_plan_version_id_plan_versions"),
        ),
        sa.ForeignKeyConstraint(
            ["promotion_code_id"],
            ["promotion_codes.id"],
            name=op.f("fk_stripe_checkouts_promotion_code_id_promotion_codes"),
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscriptions.id"],
            name=op.f("fk_stripe_checkouts_subscription_id_subscriptions"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stripe_checkouts")),
        sa.UniqueConstraint("session_id", name=op.f("uq_stripe_checkouts_session_id")),
    )
    op.create_index(
        op.f("ix_stripe_checkouts_account_id_id"), "stripe_checkouts", ["account_id", "id"], unique=False
    )
    op.create_index(op.f("ix_stripe_checkouts_stripe_id"), "stripe_checkouts", ["stripe_id"], unique=False)
    op.create_index(
        "ix_stripe_checkouts_unfinished",
        "stripe_checkouts",
        ["next_try_at"],
        unique=False,
        postgresql_where=sa.text("state IN ('wanted', 'open')"),
    )
    op.create_index(
        "uq_stripe_checkouts_open",
        "stripe_checkouts",
        ["account_id", "api_product_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('wanted', 'open')"),
    )
    op.create_table(
        "stripe_subscriptions",
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("stripe_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("plan_version_id", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("billing_cycle_anchor", sa.DateTime(timezone=True), nullable=False),
        sa.Column("current_period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("current_period_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("trial_end", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_at_period_end", sa.Boolean(), nullable=False),
        sa.Column("cancel_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("canceled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("schedule_id", sa.Text(), nullable=True),
        sa.Column("latest_invoice_id", sa.Text(), nullable=True),
        sa.Column("pending_update_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("automatic_tax", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("setup_fee_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("problem", sa.Text(), server_default="", nullable=False),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "status IN ('incomplete', 'incomplete_expired', 'trialing', 'active', 'past_due', 'unpaid',"
            " 'canceled', 'paused')",
            name=op.f("ck_stripe_subscriptions_status"),
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_stripe_subscriptions_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(
            ["plan_version_id"],
            ["plan_versions.id"],
            name=op.f("fk_stripe_subscriptions_plan_version_id_plan_versions"),
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["subscriptions.id"],
            name=op.f("fk_stripe_subscriptions_subscription_id_subscriptions"),
        ),
        sa.PrimaryKeyConstraint("subscription_id", name=op.f("pk_stripe_subscriptions")),
        sa.UniqueConstraint("stripe_id", name=op.f("uq_stripe_subscriptions_stripe_id")),
    )
    op.create_index(
        op.f("ix_stripe_subscriptions_account_id"), "stripe_subscriptions", ["account_id"], unique=False
    )
    op.create_index(
        op.f("ix_stripe_subscriptions_customer_id"), "stripe_subscriptions", ["customer_id"], unique=False
    )
    op.create_index(
        "ix_stripe_subscriptions_live",
        "stripe_subscriptions",
        ["read_at"],
        unique=False,
        postgresql_where=sa.text("status NOT IN ('canceled', 'incomplete_expired')"),
    )
    op.create_index(
        op.f("ix_stripe_subscriptions_schedule_id"), "stripe_subscriptions", ["schedule_id"], unique=False
    )
    op.create_table(
        "stripe_changes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("wanted", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("problem_code", sa.Text(), server_default="", nullable=False),
        sa.Column("problem", sa.Text(), server_default="", nullable=False),
        sa.Column("schedule_id", sa.Text(), nullable=True),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("effective_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "kind IN ('update', 'schedule', 'withdraw', 'cancel', 'cancel_now', 'keep',"
            " 'end_trial', 'extend_trial', 'discount', 'begin')",
            name=op.f("ck_stripe_changes_kind"),
        ),
        sa.CheckConstraint(
            "state <> 'refused' OR problem_code <> ''", name=op.f("ck_stripe_changes_problem_code")
        ),
        sa.CheckConstraint(
            "state IN ('wanted', 'asked', 'pending', 'scheduled', 'done', 'refused', 'withdrawn')",
            name=op.f("ck_stripe_changes_state"),
        ),
        sa.CheckConstraint("attempt >= 1", name=op.f("ck_stripe_changes_attempt")),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["stripe_subscriptions.subscription_id"],
            name=op.f("fk_stripe_changes_subscription_id_stripe_subscriptions"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stripe_changes")),
    )
    op.create_index(
        op.f("ix_stripe_changes_subscription_id_id"), "stripe_changes", ["subscription_id", "id"], unique=False
    )
    op.create_index(
        "ix_stripe_changes_unfinished",
        "stripe_changes",
        ["next_try_at"],
        unique=False,
        postgresql_where=sa.text("state IN ('wanted', 'asked', 'pending')"),
    )
    op.create_index(
        "uq_stripe_changes_open",
        "stripe_changes",
        ["subscription_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('wanted', 'asked', 'pending')"),
    )
    op.create_table(
        "stripe_discounts",
        sa.Column("discount_id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=True),
        sa.Column("stripe_coupon_id", sa.Text(), nullable=False),
        sa.Column("coupon_id", sa.Text(), nullable=True),
        sa.Column("percent", sa.Numeric(precision=7, scale=4), nullable=True),
        sa.Column("amount_minor", sa.BigInteger(), nullable=True),
        sa.Column("duration", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(percent IS NULL) <> (amount_minor IS NULL)", name=op.f("ck_stripe_discounts_percent_or_amount")
        ),
        sa.ForeignKeyConstraint(["coupon_id"], ["coupons.id"], name=op.f("fk_stripe_discounts_coupon_id_coupons")),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["stripe_subscriptions.subscription_id"],
            name=op.f("fk_stripe_discounts_subscription_id_stripe_subscriptions"),
        ),
        sa.PrimaryKeyConstraint("discount_id", name=op.f("pk_stripe_discounts")),
    )
    op.create_index(
        op.f("ix_stripe_discounts_subscription_id"), "stripe_discounts", ["subscription_id"], unique=False
    )
    op.create_table(
        "stripe_spans",
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("plan_version_id", sa.Text(), nullable=False),
        sa.Column("ours_from", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["plan_version_id"], ["plan_versions.id"], name=op.f("fk_stripe_spans_plan_version_id_plan_versions")
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"],
            ["stripe_subscriptions.subscription_id"],
            name=op.f("fk_stripe_spans_subscription_id_stripe_subscriptions"),
        ),
        sa.PrimaryKeyConstraint("subscription_id", "starts_at", name=op.f("pk_stripe_spans")),
    )
    op.create_index(
        op.f("ix_stripe_spans_subscription_id_ours_from"),
        "stripe_spans",
        ["subscription_id", "ours_from"],
        unique=False,
    )
    op.create_table(
        "stripe_subscription_items",
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("stripe_id", sa.Text(), nullable=False),
        sa.Column("price_id", sa.Text(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=True),
        sa.Column("plan_version_id", sa.Text(), nullable=True),
        sa.Column("current_period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("current_period_end", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["plan_version_id"],
            ["plan_versions.id"],
            name=op.f("fk_stripe_subscription_items_plan_version_id_plan_versions"),
        ),
        sa.ForeignKeyConstraint(
            ["stripe_id"],
            ["stripe_subscriptions.stripe_id"],
            name=op.f("fk_stripe_subscription_items_stripe_id_stripe_subscriptions"),
        ),
        sa.PrimaryKeyConstraint("item_id", name=op.f("pk_stripe_subscription_items")),
    )
    op.create_index(
        op.f("ix_stripe_subscription_items_price_id"), "stripe_subscription_items", ["price_id"], unique=False
    )
    op.create_index(
        op.f("ix_stripe_subscription_items_stripe_id"), "stripe_subscription_items", ["stripe_id"], unique=False
    )


def downgrade() -> None:
    op.drop_table("stripe_subscription_items")
    op.drop_table("stripe_spans")
    op.drop_table("stripe_discounts")
    op.drop_table("stripe_changes")
    op.drop_table("stripe_subscriptions")
    op.drop_table("stripe_checkouts")
    op.drop_table("stripe_customers")
    op.drop_table("stripe_coupons")
    op.drop_table("stripe_balance_credits")
    for table, constraint in reversed(_OF_INVOICES):
        op.create_foreign_key(constraint, table, "invoices", ["invoice_id"], ["id"])
