"""What plans can say: currencies, trials, add-ons, quota on change, payment, what is shown."""

import sqlalchemy as sa
from alembic import op

MODELS = (
    "model IN ('flat', 'setup_fee', 'commitment', 'per_unit', 'overage', 'graduated', 'volume', 'package', "
    "'percentage')"
)
METERS = "(model IN ('flat', 'setup_fee', 'commitment')) = (meter IS NULL)"

# as in v0002, but that versions and prices may be deleted together with their plan, which the deleting transaction
# names; foreign keys keep what a subscription or an invoice names
VERSION_GUARD = """
CREATE OR REPLACE FUNCTION km_refuse_published_version_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    allowed plan_versions%ROWTYPE;
BEGIN
    IF OLD.status = 'draft' THEN
        IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
        RETURN NEW;
    END IF;
    __DELETED__
    IF TG_OP = 'UPDATE' THEN
        allowed := OLD;
        IF OLD.status = 'published' AND NEW.status = 'superseded' THEN
            allowed.status := 'superseded';
        END IF;
        IF NEW IS NOT DISTINCT FROM allowed THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'plan version % was published: its terms are final', OLD.id
        USING ERRCODE = 'restrict_violation';
END $$;
"""
VERSION_DELETED = """IF TG_OP = 'DELETE' AND OLD.plan_id = current_setting('km.deleted_plan', true) THEN
        RETURN OLD;
    END IF;"""
PRICE_GUARD = """
CREATE OR REPLACE FUNCTION km_refuse_published_price_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    touched text[] := '{}';
BEGIN
    IF TG_OP <> 'INSERT' THEN touched := touched || OLD.plan_version_id; END IF;
    IF TG_OP <> 'DELETE' THEN touched := touched || NEW.plan_version_id; END IF;
    PERFORM 1 FROM plan_versions WHERE id = ANY (touched) FOR SHARE;
    IF EXISTS (
        SELECT 1 FROM plan_versions WHERE id = ANY (touched) AND status <> 'draft'
        __DELETED__
    ) THEN
        RAISE EXCEPTION 'plan version % was published: its prices are final', touched
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
    RETURN NEW;
END $$;
"""
PRICE_DELETED = "AND NOT (TG_OP = 'DELETE' AND plan_id = coalesce(current_setting('km.deleted_plan', true), ''))"

revision = "v0017"
down_revision = "v0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_products", sa.Column("openapi_document", sa.Text(), nullable=True))
    op.add_column("plan_versions", sa.Column("trial_days", sa.Integer(), nullable=True))
    op.add_column("plan_versions", sa.Column("after_trial", sa.Text(), server_default="continue", nullable=False))
    op.add_column("plan_versions", sa.Column("quota_on_change", sa.Text(), server_default="full", nullable=False))
    op.add_column("plan_versions", sa.Column("payment", sa.Text(), server_default="invoice", nullable=False))
    op.add_column("plan_versions", sa.Column("billed_by", sa.Text(), server_default="own", nullable=False))
    op.add_column(
        "plan_versions", sa.Column("features", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False)
    )
    op.add_column("plan_versions", sa.Column("sla_level", sa.Text(), nullable=True))
    op.add_column("plan_versions", sa.Column("support_level", sa.Text(), nullable=True))
    op.add_column("plans", sa.Column("description", sa.Text(), server_default="", nullable=False))
    op.add_column("plans", sa.Column("kind", sa.Text(), server_default="plan", nullable=False))
    op.create_check_constraint(op.f("ck_plans_kind"), "plans", "kind IN ('plan', 'add_on')")
    op.create_check_constraint(
        op.f("ck_plan_versions_trial_days"), "plan_versions", "trial_days BETWEEN 1 AND 365"
    )
    op.create_check_constraint(
        op.f("ck_plan_versions_after_trial"), "plan_versions", "after_trial IN ('continue', 'cancel')"
    )
    op.create_check_constraint(
        op.f("ck_plan_versions_quota_on_change"),
        "plan_versions",
        "quota_on_change IN ('full', 'carry', 'prorated')",
    )
    op.create_check_constraint(
        op.f("ck_plan_versions_payment"), "plan_versions", "payment IN ('invoice', 'prepaid')"
    )
    op.create_check_constraint(
        op.f("ck_plan_versions_billed_by"), "plan_versions", "billed_by IN ('own', 'stripe')"
    )
    op.add_column("prices", sa.Column("currency", sa.Text(), nullable=True))
    op.execute("ALTER TABLE prices DISABLE TRIGGER published_price_is_final")
    op.execute(
        "UPDATE prices SET currency = plan_versions.currency FROM plan_versions "
        "WHERE plan_versions.id = prices.plan_version_id"
    )
    op.execute("ALTER TABLE prices ENABLE TRIGGER published_price_is_final")
    op.alter_column("prices", "currency", nullable=False)
    op.create_check_constraint(op.f("ck_prices_currency"), "prices", "currency ~ '^[A-Z]{3}$'")
    op.drop_constraint(op.f("uq_prices_plan_version_id_position"), "prices")
    op.create_unique_constraint(
        op.f("uq_prices_plan_version_id_currency_position"), "prices", ["plan_version_id", "currency", "position"]
    )
    op.drop_constraint(op.f("ck_prices_model"), "prices")
    op.create_check_constraint(op.f("ck_prices_model"), "prices", MODELS)
    op.drop_constraint(op.f("ck_prices_meter"), "prices")
    op.create_check_constraint(op.f("ck_prices_meter"), "prices", METERS)

    op.execute(VERSION_GUARD.replace("__DELETED__", VERSION_DELETED))
    op.execute(PRICE_GUARD.replace("__DELETED__", PRICE_DELETED))


def downgrade() -> None:
    op.execute(VERSION_GUARD.replace("__DELETED__", ""))
    op.execute(PRICE_GUARD.replace("__DELETED__", ""))
    # what the older tables cannot hold is of plan versions that nobody sells there: new models, second currencies
    op.execute("ALTER TABLE prices DISABLE TRIGGER published_price_is_final")
    op.execute(
        "DELETE FROM prices USING plan_versions WHERE plan_versions.id = prices.plan_version_id "
        "AND (prices.currency <> plan_versions.currency OR model IN ('setup_fee', 'commitment', 'percentage'))"
    )
    op.execute("ALTER TABLE prices ENABLE TRIGGER published_price_is_final")
    op.drop_constraint(op.f("ck_prices_meter"), "prices")
    op.create_check_constraint(op.f("ck_prices_meter"), "prices", "(model = 'flat') = (meter IS NULL)")
    op.drop_constraint(op.f("ck_prices_model"), "prices")
    op.create_check_constraint(
        op.f("ck_prices_model"),
        "prices",
        "model IN ('flat', 'per_unit', 'overage', 'graduated', 'volume', 'package')",
    )
    op.drop_constraint(op.f("uq_prices_plan_version_id_currency_position"), "prices")
    op.drop_column("prices", "currency")
    op.create_unique_constraint(
        op.f("uq_prices_plan_version_id_position"), "prices", ["plan_version_id", "position"]
    )
    for column in (
        "support_level",
        "sla_level",
        "features",
        "billed_by",
        "payment",
        "quota_on_change",
        "after_trial",
    ):
        op.drop_column("plan_versions", column)
    op.drop_column("plan_versions", "trial_days")
    op.drop_column("plans", "kind")
    op.drop_column("plans", "description")
    op.drop_column("api_products", "openapi_document")
