"""Discounts, promotion codes, referrals, tax rates."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "v0021"
down_revision = "v0020"
branch_labels = None
depends_on = None

# What customers were given stays as they were given it.
REDEEMED = """
CREATE FUNCTION km_refuse_redeemed_coupon_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    allowed coupons%ROWTYPE;
BEGIN
    IF OLD.redemptions = 0 THEN
        IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
        RETURN NEW;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        allowed := OLD;
        allowed.redemptions := greatest(OLD.redemptions, NEW.redemptions);
        allowed.archived_at := NEW.archived_at;
        IF NEW IS NOT DISTINCT FROM allowed THEN RETURN NEW; END IF;
    END IF;
    RAISE EXCEPTION 'coupon % was redeemed: its terms are final', OLD.code USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER redeemed_coupon_is_final BEFORE UPDATE OR DELETE ON coupons
    FOR EACH ROW EXECUTE FUNCTION km_refuse_redeemed_coupon_change();
"""
NO_LONGER_FINAL = """
DROP TRIGGER redeemed_coupon_is_final ON coupons;
DROP FUNCTION km_refuse_redeemed_coupon_change;
"""


def upgrade() -> None:
    op.create_table(
        "coupons",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("percent", sa.Numeric(precision=7, scale=4), nullable=True),
        sa.Column("amount_minor", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("duration", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=True),
        sa.Column("scope", sa.Text(), server_default="all", nullable=False),
        sa.Column("plan_codes", ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("product_codes", ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("max_redemptions", sa.Integer(), nullable=True),
        sa.Column("redeem_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("redemptions", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(amount_minor IS NULL) = (currency IS NULL) AND currency ~ '^[A-Z]{3}$'",
            name=op.f("ck_coupons_currency"),
        ),
        sa.CheckConstraint(
            "(duration IN ('periods', 'months')) = (count IS NOT NULL) AND count >= 1",
            name=op.f("ck_coupons_count"),
        ),
        sa.CheckConstraint("code ~ '^[a-z][a-z0-9_-]{0,47}$'", name=op.f("ck_coupons_code")),
        sa.CheckConstraint(
            "duration IN ('once', 'forever', 'periods', 'months')", name=op.f("ck_coupons_duration")
        ),
        sa.CheckConstraint("scope IN ('all', 'fixed', 'usage')", name=op.f("ck_coupons_scope")),
        sa.CheckConstraint(
            "(percent IS NULL) <> (amount_minor IS NULL)", name=op.f("ck_coupons_percent_or_amount")
        ),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_coupons_amount_minor")),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name=op.f("ck_coupons_name_length")),
        sa.CheckConstraint("max_redemptions >= 1", name=op.f("ck_coupons_max_redemptions")),
        sa.CheckConstraint("percent > 0 AND percent <= 100", name=op.f("ck_coupons_percent")),
        sa.CheckConstraint(
            "redemptions >= 0 AND (max_redemptions IS NULL OR redemptions <= max_redemptions)",
            name=op.f("ck_coupons_redemptions"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_coupons")),
        sa.UniqueConstraint("code", name=op.f("uq_coupons_code")),
    )
    op.create_index(op.f("ix_coupons_created_at_id"), "coupons", ["created_at", "id"], unique=False)
    op.create_table(
        "referral_rewards",
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("ck_referral_rewards_currency")),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_referral_rewards_amount_minor")),
        sa.PrimaryKeyConstraint("currency", name=op.f("pk_referral_rewards")),
    )
    op.create_table(
        "tax_rates",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("country", sa.Text(), server_default="", nullable=False),
        sa.Column("region", sa.Text(), server_default="", nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("percent", sa.Numeric(precision=7, scale=4), nullable=False),
        sa.Column("scope", sa.Text(), server_default="all", nullable=False),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("country = '' OR country ~ '^[A-Z]{2}$'", name=op.f("ck_tax_rates_country")),
        sa.CheckConstraint("region = '' OR country <> ''", name=op.f("ck_tax_rates_region")),
        sa.CheckConstraint("scope IN ('all', 'fixed', 'usage')", name=op.f("ck_tax_rates_scope")),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name=op.f("ck_tax_rates_name_length")),
        sa.CheckConstraint("percent > 0 AND percent <= 100", name=op.f("ck_tax_rates_percent")),
        sa.CheckConstraint("valid_until >= valid_from", name=op.f("ck_tax_rates_valid_until")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tax_rates")),
    )
    op.create_index(op.f("ix_tax_rates_country_region"), "tax_rates", ["country", "region"], unique=False)
    op.create_table(
        "founding_offers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("coupon_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="open", nullable=False),
        sa.Column("max_accounts", sa.Integer(), nullable=True),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("members", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'closed') = (closed_at IS NOT NULL)", name=op.f("ck_founding_offers_closed_at")
        ),
        sa.CheckConstraint("state IN ('open', 'closed')", name=op.f("ck_founding_offers_state")),
        sa.CheckConstraint("max_accounts >= 1", name=op.f("ck_founding_offers_max_accounts")),
        sa.CheckConstraint(
            "members >= 0 AND (max_accounts IS NULL OR members <= max_accounts)",
            name=op.f("ck_founding_offers_members"),
        ),
        sa.ForeignKeyConstraint(["coupon_id"], ["coupons.id"], name=op.f("fk_founding_offers_coupon_id_coupons")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_founding_offers")),
    )
    op.create_index(
        "uq_founding_offers_open",
        "founding_offers",
        ["state"],
        unique=True,
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_table(
        "promotion_codes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("coupon_id", sa.Text(), nullable=False),
        sa.Column("max_redemptions", sa.Integer(), nullable=True),
        sa.Column("redeem_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("first_time_only", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("minimum_minor", sa.BigInteger(), nullable=True),
        sa.Column("minimum_currency", sa.Text(), nullable=True),
        sa.Column("redemptions", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("code ~ '^[A-Z0-9][A-Z0-9_-]{2,47}$'", name=op.f("ck_promotion_codes_code")),
        sa.CheckConstraint(
            "(minimum_minor IS NULL) = (minimum_currency IS NULL) AND minimum_minor > 0",
            name=op.f("ck_promotion_codes_minimum_minor"),
        ),
        sa.CheckConstraint("max_redemptions >= 1", name=op.f("ck_promotion_codes_max_redemptions")),
        sa.CheckConstraint(
            "redemptions >= 0 AND (max_redemptions IS NULL OR redemptions <= max_redemptions)",
            name=op.f("ck_promotion_codes_redemptions"),
        ),
        sa.ForeignKeyConstraint(["coupon_id"], ["coupons.id"], name=op.f("fk_promotion_codes_coupon_id_coupons")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promotion_codes")),
        sa.UniqueConstraint("code", name=op.f("uq_promotion_codes_code")),
    )
    op.create_index(op.f("ix_promotion_codes_coupon_id"), "promotion_codes", ["coupon_id"], unique=False)
    op.create_index(
        op.f("ix_promotion_codes_created_at_id"), "promotion_codes", ["created_at", "id"], unique=False
    )
    op.create_table(
        "referral_codes",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("code ~ '^[A-Z0-9]{8}$'", name=op.f("ck_referral_codes_code")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_referral_codes_account_id_accounts")
        ),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_referral_codes")),
        sa.UniqueConstraint("code", name=op.f("uq_referral_codes_code")),
    )
    op.create_table(
        "discounts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("coupon_id", sa.Text(), nullable=False),
        sa.Column("promotion_code_id", sa.Text(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("holds_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(source = 'promotion_code') = (promotion_code_id IS NOT NULL)",
            name=op.f("ck_discounts_promotion_code_id"),
        ),
        sa.CheckConstraint("source IN ('coupon', 'promotion_code', 'founding')", name=op.f("ck_discounts_source")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_discounts_account_id_accounts")),
        sa.ForeignKeyConstraint(["coupon_id"], ["coupons.id"], name=op.f("fk_discounts_coupon_id_coupons")),
        sa.ForeignKeyConstraint(
            ["promotion_code_id"],
            ["promotion_codes.id"],
            name=op.f("fk_discounts_promotion_code_id_promotion_codes"),
        ),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["subscriptions.id"], name=op.f("fk_discounts_subscription_id_subscriptions")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_discounts")),
    )
    op.create_index(op.f("ix_discounts_account_id"), "discounts", ["account_id"], unique=False)
    op.create_index(op.f("ix_discounts_coupon_id"), "discounts", ["coupon_id"], unique=False)
    op.create_index(op.f("ix_discounts_subscription_id"), "discounts", ["subscription_id"], unique=False)
    op.create_index(
        "uq_discounts_promotion_code",
        "discounts",
        ["promotion_code_id", "account_id"],
        unique=True,
        postgresql_where=sa.text("promotion_code_id IS NOT NULL"),
    )
    op.create_table(
        "discount_uses",
        sa.Column("discount_id", sa.Text(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("charge_key", sa.Text(), nullable=False),
        sa.Column("invoice_id", sa.Text(), nullable=False),
        sa.Column("base_minor", sa.BigInteger(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("noted_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["discount_id"], ["discounts.id"], name=op.f("fk_discount_uses_discount_id_discounts")
        ),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["invoices.id"], name=op.f("fk_discount_uses_invoice_id_invoices")
        ),
        sa.PrimaryKeyConstraint(
            "discount_id", "period_start", "charge_key", "invoice_id", name=op.f("pk_discount_uses")
        ),
    )
    op.create_index(op.f("ix_discount_uses_invoice_id"), "discount_uses", ["invoice_id"], unique=False)
    op.create_table(
        "first_payments",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("invoice_id", sa.Text(), nullable=False),
        sa.Column("paid_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_first_payments_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["invoices.id"], name=op.f("fk_first_payments_invoice_id_invoices")
        ),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_first_payments")),
    )
    op.create_table(
        "founding_members",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("offer_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("discount_id", sa.Text(), nullable=False),
        sa.Column("joined_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("number >= 1", name=op.f("ck_founding_members_number")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_founding_members_account_id_accounts")
        ),
        sa.ForeignKeyConstraint(
            ["discount_id"], ["discounts.id"], name=op.f("fk_founding_members_discount_id_discounts")
        ),
        sa.ForeignKeyConstraint(
            ["offer_id"], ["founding_offers.id"], name=op.f("fk_founding_members_offer_id_founding_offers")
        ),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_founding_members")),
    )
    op.create_index(
        op.f("ix_founding_members_offer_id_number"), "founding_members", ["offer_id", "number"], unique=True
    )
    op.create_table(
        "referrals",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("referrer_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("reward_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("invoice_id", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'pending') = (invoice_id IS NULL)", name=op.f("ck_referrals_invoice_id")),
        sa.CheckConstraint("(state = 'pending') = (settled_at IS NULL)", name=op.f("ck_referrals_settled_at")),
        sa.CheckConstraint("state IN ('pending', 'rewarded', 'forfeited')", name=op.f("ck_referrals_state")),
        sa.CheckConstraint("referrer_id <> account_id", name=op.f("ck_referrals_referrer_id")),
        sa.CheckConstraint("reward_minor > 0", name=op.f("ck_referrals_reward_minor")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_referrals_account_id_accounts")),
        sa.ForeignKeyConstraint(["invoice_id"], ["invoices.id"], name=op.f("fk_referrals_invoice_id_invoices")),
        sa.ForeignKeyConstraint(["referrer_id"], ["accounts.id"], name=op.f("fk_referrals_referrer_id_accounts")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_referrals")),
    )
    op.create_index(
        op.f("ix_referrals_created_at_account_id"), "referrals", ["created_at", "account_id"], unique=False
    )
    op.create_index(op.f("ix_referrals_referrer_id"), "referrals", ["referrer_id"], unique=False)
    op.execute(REDEEMED)


def downgrade() -> None:
    op.execute(NO_LONGER_FINAL)
    op.drop_table("referrals")
    op.drop_table("founding_members")
    op.drop_table("first_payments")
    op.drop_table("discount_uses")
    op.drop_table("discounts")
    op.drop_table("referral_codes")
    op.drop_table("promotion_codes")
    op.drop_table("founding_offers")
    op.drop_table("tax_rates")
    op.drop_table("referral_rewards")
    op.drop_table("coupons")
