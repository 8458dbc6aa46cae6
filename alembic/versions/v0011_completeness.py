"""Completeness of hours, and digests of their events."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "v0011"
down_revision = "v0010"
branch_labels = None
depends_on = None

FULL_HOUR = "mod(extract(epoch FROM hour), 3600) = 0"
HEX = "root ~ '^[0-9a-f]{64}$' AND previous ~ '^[0-9a-f]{64}$' AND digest ~ '^[0-9a-f]{64}$'"

DIGESTS_ARE_FINAL = """
CREATE FUNCTION km_refuse_digest_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'digests of usage are never changed' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER usage_digests_are_final BEFORE UPDATE OR DELETE ON usage_digests
    FOR EACH ROW EXECUTE FUNCTION km_refuse_digest_change();
CREATE TRIGGER usage_digests_are_not_truncated BEFORE TRUNCATE ON usage_digests
    FOR EACH STATEMENT EXECUTE FUNCTION km_refuse_digest_change();
"""


def upgrade() -> None:
    _create_completeness()
    _create_checks()
    _create_digests()
    op.create_index(
        "ix_usage_hours_sealed", "usage_hours", ["sealed_at"], postgresql_where=sa.text("sealed_at IS NOT NULL")
    )


def _create_completeness() -> None:
    op.create_table(
        "usage_completeness",
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("product", sa.Text(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("admitted", sa.BigInteger(), nullable=False),
        sa.Column("not_counted", sa.BigInteger(), nullable=False),
        sa.Column("numbers", JSONB(none_as_null=True), nullable=False),
        sa.Column("counted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("state", sa.Text(), server_default=sa.text("'waiting'"), nullable=False),
        sa.Column("stored", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("unnumbered", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("rolled_up", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("missing_calls", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("missing", JSONB(none_as_null=True), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(FULL_HOUR, name=op.f("ck_usage_completeness_hour")),
        sa.CheckConstraint("mode IN ('live', 'test')", name=op.f("ck_usage_completeness_mode")),
        sa.CheckConstraint(
            "state IN ('waiting', 'complete', 'missing', 'surplus', 'unknown')",
            name=op.f("ck_usage_completeness_state"),
        ),
        sa.CheckConstraint("missing_calls >= 0", name=op.f("ck_usage_completeness_missing_calls")),
        sa.PrimaryKeyConstraint("hour", "subscription_id", "mode", name=op.f("pk_usage_completeness")),
    )
    op.create_index(op.f("ix_usage_completeness_account_id_hour"), "usage_completeness", ["account_id", "hour"])
    op.create_index(
        "ix_usage_completeness_not_complete",
        "usage_completeness",
        ["hour"],
        postgresql_where=sa.text("state <> 'complete'"),
    )


def _create_checks() -> None:
    op.create_table(
        "usage_hour_checks",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recheck_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("differs_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("differences", JSONB(none_as_null=True), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("settled", sa.Text(), nullable=False),
        sa.CheckConstraint(FULL_HOUR, name=op.f("ck_usage_hour_checks_hour")),
        sa.CheckConstraint(
            "settled IN ('yes', 'differs', 'pending', 'none')", name=op.f("ck_usage_hour_checks_settled")
        ),
        sa.PrimaryKeyConstraint("account_id", "hour", name=op.f("pk_usage_hour_checks")),
    )
    op.create_index(
        "ix_usage_hour_checks_due",
        "usage_hour_checks",
        ["recheck_at"],
        postgresql_where=sa.text("recheck_at IS NOT NULL"),
    )
    op.create_index(
        "ix_usage_hour_checks_wrong",
        "usage_hour_checks",
        ["hour"],
        postgresql_where=sa.text("differs_since IS NOT NULL OR settled = 'differs'"),
    )
    op.create_index(op.f("ix_usage_hour_checks_hour"), "usage_hour_checks", ["hour"])
    op.create_table(
        "usage_completeness_runs",
        sa.Column("id", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("counted_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("checked_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("digested_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sampled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("id = 1", name=op.f("ck_usage_completeness_runs_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_completeness_runs")),
    )


def _create_digests() -> None:
    op.create_table(
        "usage_digests",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.Text(), nullable=False),
        sa.Column("previous", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(FULL_HOUR, name=op.f("ck_usage_digests_hour")),
        sa.CheckConstraint("sequence > 0", name=op.f("ck_usage_digests_sequence")),
        sa.CheckConstraint("events >= 0", name=op.f("ck_usage_digests_events")),
        sa.CheckConstraint(HEX, name=op.f("ck_usage_digests_hex")),
        sa.PrimaryKeyConstraint("account_id", "sequence", name=op.f("pk_usage_digests")),
        sa.UniqueConstraint(
            "account_id", "hour", "revision", name=op.f("uq_usage_digests_account_id_hour_revision")
        ),
    )
    op.execute(DIGESTS_ARE_FINAL)


def downgrade() -> None:
    op.drop_index("ix_usage_hours_sealed", "usage_hours")
    op.drop_table("usage_digests")
    op.execute("DROP FUNCTION km_refuse_digest_change()")
    op.drop_table("usage_completeness_runs")
    op.drop_table("usage_hour_checks")
    op.drop_table("usage_completeness")
