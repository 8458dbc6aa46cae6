"""Usage on its way to Stripe.

A trigger on the ledger of sealed usage writes its rows, in the transaction that seals: none is missed, whichever
of several sealers commits first, and nobody has to look through the ledger. What was sealed before is taken over
here.
"""

import sqlalchemy as sa
from alembic import op

revision = "v0027"
down_revision = "v0026"
branch_labels = None
depends_on = None

# Index lookups for each row: a hash join would read all subscriptions for every seal. A row of an hour, phase and
# meter that has one already follows it, though the phase may be gone by now.
TAKE = """
INSERT INTO stripe_usage_rows (account_id, hour, revision, phase_id, meter, subscription_id, plan_version_id,
    delta_units, sealed_at, due_at)
SELECT added.account_id, added.hour, added.revision, added.phase_id, added.meter, found.subscription_id,
    found.plan_version_id, added.delta_units, added.sealed_at, added.sealed_at
FROM {added} AS added
CROSS JOIN LATERAL (
    SELECT phase.subscription_id, phase.plan_version_id
    FROM subscription_phases AS phase JOIN subscriptions AS of ON of.id = phase.subscription_id
    WHERE phase.id = added.phase_id AND phase.kind = 'paid' AND of.billed_by = 'stripe'
        AND (EXISTS (
            SELECT 1 FROM prices
            WHERE prices.plan_version_id = phase.plan_version_id AND prices.meter = added.meter
        ) OR EXISTS (
            SELECT 1 FROM subscription_add_ons AS add_on JOIN prices USING (plan_version_id)
            WHERE add_on.subscription_id = phase.subscription_id AND prices.meter = added.meter
        ))
    UNION ALL
    SELECT before.subscription_id, before.plan_version_id
    FROM stripe_usage_rows AS before
    WHERE before.account_id = added.account_id AND before.hour = added.hour
        AND before.phase_id = added.phase_id AND before.meter = added.meter
    LIMIT 1
) AS found
ON CONFLICT DO NOTHING
"""
FUNCTION = f"""
CREATE FUNCTION km_take_stripe_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    {TAKE.format(added="added_rows").strip()};
    RETURN NULL;
END $$
"""
TRIGGER = """
CREATE TRIGGER usage_ledger_goes_to_stripe AFTER INSERT ON usage_ledger REFERENCING NEW TABLE AS added_rows
    FOR EACH STATEMENT EXECUTE FUNCTION km_take_stripe_usage()
"""


def upgrade() -> None:
    op.create_table(
        "stripe_usage_errors",
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("meter_id", sa.Text(), server_default="", nullable=False),
        sa.Column("error_count", sa.Integer(), nullable=False),
        sa.Column("rows_found", sa.Integer(), nullable=False),
        sa.Column("rows_doubted", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("sentence", sa.Text(), server_default="", nullable=False),
        sa.Column("window_start", sa.DateTime(timezone=True), nullable=True),
        sa.Column("window_end", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "error_count >= 0 AND rows_found >= 0 AND rows_doubted >= 0",
            name=op.f("ck_stripe_usage_errors_counts"),
        ),
        sa.PrimaryKeyConstraint("event_id", "code", name=op.f("pk_stripe_usage_errors")),
    )
    op.create_index(
        op.f("ix_stripe_usage_errors_reported_at_event_id_code"),
        "stripe_usage_errors",
        ["reported_at", "event_id", "code"],
        unique=False,
    )
    op.create_table(
        "stripe_usage_rows",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("phase_id", sa.Text(), nullable=False),
        sa.Column("meter", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("plan_version_id", sa.Text(), nullable=False),
        sa.Column("delta_units", sa.BigInteger(), nullable=False),
        sa.Column("sealed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("way", sa.Text(), server_default="", nullable=False),
        sa.Column("cancels_revision", sa.BigInteger(), nullable=True),
        sa.Column("edition", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("key_turn", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("identifier", sa.Text(), nullable=True),
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("event_name", sa.Text(), nullable=True),
        sa.Column("stripe_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("first_sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(way = 'cancel') = (cancels_revision IS NOT NULL)", name=op.f("ck_stripe_usage_rows_cancels_revision")
        ),
        sa.CheckConstraint(
            "state <> 'delivered' OR delivered_at IS NOT NULL", name=op.f("ck_stripe_usage_rows_delivered_at")
        ),
        sa.CheckConstraint(
            "state IN ('waiting', 'sent', 'delivered', 'cancelled', 'refused', 'too_old', 'ours')",
            name=op.f("ck_stripe_usage_rows_state"),
        ),
        sa.CheckConstraint(
            "state NOT IN ('sent', 'delivered') OR (identifier IS NOT NULL AND customer_id IS NOT NULL"
            " AND event_name IS NOT NULL AND stripe_at IS NOT NULL AND first_sent_at IS NOT NULL)",
            name=op.f("ck_stripe_usage_rows_sent_as"),
        ),
        sa.CheckConstraint("way IN ('', 'event', 'cancel')", name=op.f("ck_stripe_usage_rows_way")),
        sa.CheckConstraint("delta_units <> 0", name=op.f("ck_stripe_usage_rows_delta_units")),
        sa.CheckConstraint(
            "edition >= 1 AND key_turn >= 1 AND attempts >= 0", name=op.f("ck_stripe_usage_rows_edition")
        ),
        sa.PrimaryKeyConstraint(
            "account_id", "hour", "revision", "phase_id", "meter", name=op.f("pk_stripe_usage_rows")
        ),
        sa.UniqueConstraint("identifier", name=op.f("uq_stripe_usage_rows_identifier")),
    )
    op.create_index(
        "ix_stripe_usage_rows_lanes",
        "stripe_usage_rows",
        ["account_id", "meter", "hour", "revision"],
        unique=False,
        postgresql_where=sa.text("state IN ('waiting', 'sent')"),
    )
    op.create_index(
        "ix_stripe_usage_rows_leased",
        "stripe_usage_rows",
        ["account_id", "meter"],
        unique=False,
        postgresql_where=sa.text("leased_until IS NOT NULL"),
    )
    op.create_index(
        "ix_stripe_usage_rows_refused",
        "stripe_usage_rows",
        ["hour"],
        unique=False,
        postgresql_where=sa.text("state = 'refused'"),
    )
    op.create_index(
        op.f("ix_stripe_usage_rows_subscription_id_hour"),
        "stripe_usage_rows",
        ["subscription_id", "hour"],
        unique=False,
    )
    op.create_index(
        "ix_stripe_usage_rows_summary",
        "stripe_usage_rows",
        ["customer_id", "event_name", "stripe_at"],
        unique=False,
        postgresql_where=sa.text("customer_id IS NOT NULL"),
    )
    op.create_index(
        "ix_stripe_usage_rows_unsettled",
        "stripe_usage_rows",
        ["subscription_id", "hour"],
        unique=False,
        postgresql_where=sa.text("state IN ('waiting', 'sent')"),
    )
    op.execute(FUNCTION)
    op.execute(TRIGGER)
    op.execute(TAKE.format(added="usage_ledger"))


def downgrade() -> None:
    op.execute("DROP TRIGGER usage_ledger_goes_to_stripe ON usage_ledger")
    op.execute("DROP FUNCTION km_take_stripe_usage")
    op.drop_table("stripe_usage_rows")
    op.drop_table("stripe_usage_errors")
