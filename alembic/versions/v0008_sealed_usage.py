"""The ledger of sealed usage, superseded figures, amendments and voids.

Going down, corrections are lost: their hours are recomputed without them. Seals that stand when the ledger is made
are its first entries.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "v0008"
down_revision = "v0007"
branch_labels = None
depends_on = None

FULL_HOUR = "mod(extract(epoch FROM hour), 3600) = 0"
REASON = "char_length(reason) BETWEEN 1 AND 1000"
PRIMARY_KEY = "pk_usage_hourly"
HOUR = ["account_id", "hour"]
ROW_KEY = ["phase_id", "product", "mode", "key_id", "endpoint", "status", "outcome", "replayed"]
FINAL_TABLES = (
    "usage_ledger",
    "usage_hours_superseded",
    "usage_hourly_superseded",
    "usage_voids",
    "usage_amendments",
    "usage_withdrawals",
)

REFUSE_CHANGE = """
CREATE FUNCTION km_refuse_usage_record_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are never changed', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
"""
FINAL = """
CREATE TRIGGER {table}_is_final BEFORE UPDATE OR DELETE ON {table}
    FOR EACH ROW EXECUTE FUNCTION km_refuse_usage_record_change();
CREATE TRIGGER {table}_is_not_truncated BEFORE TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION km_refuse_usage_record_change();
"""

# as the sealer writes them; '' counts billable calls
FIRST_ENTRIES = """
INSERT INTO usage_ledger (account_id, hour, revision, phase_id, meter, units, delta_units, sealed_at)
SELECT account_id, hour, sealed.revision, phase_id, meter, sum(amounts.units), sum(amounts.units), sealed_at
FROM usage_hours AS sealed JOIN usage_hourly USING (account_id, hour)
CROSS JOIN LATERAL (
    SELECT * FROM (VALUES
        ('', billable_calls),
        ('requests', billable_units),
        ('bytes_in', CASE WHEN billable_calls > 0 THEN bytes_in ELSE 0 END),
        ('bytes_out', CASE WHEN billable_calls > 0 THEN bytes_out ELSE 0 END),
        ('upstream_ms', CASE WHEN billable_calls > 0 THEN upstream_ms_sum ELSE 0 END)
    ) AS built_in (meter, units)
    UNION ALL SELECT key, CAST(value AS bigint) FROM jsonb_each_text(billable_dimensions)
    WHERE key NOT IN ('', 'requests', 'bytes_in', 'bytes_out', 'upstream_ms')
) AS amounts (meter, units)
WHERE sealed_at IS NOT NULL AND mode = 'live'
GROUP BY account_id, hour, sealed.revision, phase_id, meter, sealed_at
HAVING sum(amounts.units) > 0
"""

RECOMPUTE_CORRECTED_HOURS = """
INSERT INTO touched_hours (account_id, hour, generation, touched_at)
SELECT account_id, hour, 1, now() FROM (
    SELECT account_id, hour FROM usage_voids UNION SELECT account_id, hour FROM usage_amendments
) AS corrected
ORDER BY account_id, hour
ON CONFLICT (account_id, hour) DO UPDATE SET generation = touched_hours.generation + 1
"""


def upgrade() -> None:
    op.add_column("usage_hours", sa.Column("recompute_ms", sa.Integer(), server_default="0", nullable=False))
    op.add_column("usage_hours", sa.Column("recompute_after", sa.DateTime(timezone=True), nullable=True))
    op.add_column("usage_hourly", sa.Column("amendment_id", sa.Text(), server_default="", nullable=False))
    op.drop_constraint(op.f(PRIMARY_KEY), "usage_hourly", type_="primary")
    op.create_primary_key(op.f(PRIMARY_KEY), "usage_hourly", [*HOUR, *ROW_KEY, "amendment_id"])
    for part in ("calls", "units"):
        name = op.f(f"ck_usage_hourly_billable_{part}")
        op.drop_constraint(name, "usage_hourly", type_="check")
        condition = f"amendment_id <> '' OR billable_{part} BETWEEN 0 AND {part}"
        op.create_check_constraint(name, "usage_hourly", condition)
    _create_ledger()
    _create_superseded()
    _create_corrections()
    op.execute(FIRST_ENTRIES)
    op.execute(REFUSE_CHANGE)
    for table in FINAL_TABLES:
        op.execute(FINAL.format(table=table))


def _create_ledger() -> None:
    op.create_table(
        "usage_ledger",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("phase_id", sa.Text(), nullable=False),
        sa.Column("meter", sa.Text(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("delta_units", sa.BigInteger(), nullable=False),
        sa.Column("sealed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(FULL_HOUR, name=op.f("ck_usage_ledger_hour")),
        sa.CheckConstraint("units >= 0", name=op.f("ck_usage_ledger_units")),
        sa.CheckConstraint("delta_units <> 0", name=op.f("ck_usage_ledger_delta_units")),
        sa.PrimaryKeyConstraint(*HOUR, "revision", "phase_id", "meter", name=op.f("pk_usage_ledger")),
    )
    op.create_index(op.f("ix_usage_ledger_phase_id_hour"), "usage_ledger", ["phase_id", "hour"])


def _create_superseded() -> None:
    op.create_table(
        "usage_hours_superseded",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("sealed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("superseded_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(FULL_HOUR, name=op.f("ck_usage_hours_superseded_hour")),
        sa.CheckConstraint("superseded_at >= sealed_at", name=op.f("ck_usage_hours_superseded_superseded_at")),
        sa.PrimaryKeyConstraint(*HOUR, "revision", name=op.f("pk_usage_hours_superseded")),
    )
    op.create_table(
        "usage_hourly_superseded",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("phase_id", sa.Text(), nullable=False),
        sa.Column("product", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("replayed", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("amendment_id", sa.Text(), server_default="", nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("billable_calls", sa.BigInteger(), nullable=False),
        sa.Column("billable_units", sa.BigInteger(), nullable=False),
        sa.Column("bytes_in", sa.BigInteger(), nullable=False),
        sa.Column("bytes_out", sa.BigInteger(), nullable=False),
        sa.Column("latency_ms_sum", sa.BigInteger(), nullable=False),
        sa.Column("gateway_ms_sum", sa.BigInteger(), nullable=False),
        sa.Column("upstream_ms_sum", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("dimensions", JSONB(none_as_null=True), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("billable_dimensions", JSONB(none_as_null=True), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(FULL_HOUR, name=op.f("ck_usage_hourly_superseded_hour")),
        sa.PrimaryKeyConstraint(
            *HOUR, "revision", *ROW_KEY, "amendment_id", name=op.f("pk_usage_hourly_superseded")
        ),
    )
    op.create_index(op.f("ix_usage_hourly_superseded_hour"), "usage_hourly_superseded", ["hour"])


def _create_corrections() -> None:
    op.create_table(
        "usage_voids",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(FULL_HOUR, name=op.f("ck_usage_voids_hour")),
        sa.CheckConstraint(REASON, name=op.f("ck_usage_voids_reason")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_voids")),
    )
    op.create_index(op.f("ix_usage_voids_account_id_hour_event_id"), "usage_voids", [*HOUR, "event_id"])
    op.create_table(
        "usage_amendments",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("phase_id", sa.Text(), nullable=False),
        sa.Column("product", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("meters", JSONB(none_as_null=True), nullable=False),
        sa.Column("declared", ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(FULL_HOUR, name=op.f("ck_usage_amendments_hour")),
        sa.CheckConstraint(REASON, name=op.f("ck_usage_amendments_reason")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_amendments")),
        sa.UniqueConstraint("account_id", "reference", name=op.f("uq_usage_amendments_account_id_reference")),
    )
    op.create_index(op.f("ix_usage_amendments_account_id_hour"), "usage_amendments", HOUR)
    op.create_table(
        "usage_withdrawals",
        sa.Column("correction_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(REASON, name=op.f("ck_usage_withdrawals_reason")),
        sa.PrimaryKeyConstraint("correction_id", name=op.f("pk_usage_withdrawals")),
    )


def downgrade() -> None:
    op.execute(RECOMPUTE_CORRECTED_HOURS)
    op.execute("DELETE FROM usage_hourly WHERE amendment_id <> ''")
    for table in reversed(FINAL_TABLES):
        op.drop_table(table)
    op.execute("DROP FUNCTION km_refuse_usage_record_change")
    for part in ("calls", "units"):
        name = op.f(f"ck_usage_hourly_billable_{part}")
        op.drop_constraint(name, "usage_hourly", type_="check")
        op.create_check_constraint(name, "usage_hourly", f"billable_{part} BETWEEN 0 AND {part}")
    op.drop_constraint(op.f(PRIMARY_KEY), "usage_hourly", type_="primary")
    op.create_primary_key(op.f(PRIMARY_KEY), "usage_hourly", [*HOUR, *ROW_KEY])
    op.drop_column("usage_hourly", "amendment_id")
    op.drop_column("usage_hours", "recompute_after")
    op.drop_column("usage_hours", "recompute_ms")
