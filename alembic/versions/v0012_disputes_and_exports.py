"""Dispute cases, and exports as background jobs.

Going down, disputes with their evidence and the list of exports are lost; files of exports stay where they are.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "v0012"
down_revision = "v0011"
branch_labels = None
depends_on = None

# Deferred to the commit: a step and the case that it changes are two statements.
TRAIL = """
CREATE FUNCTION km_check_dispute_trail() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    found disputes%ROWTYPE;
    last dispute_steps%ROWTYPE;
    entries integer;
BEGIN
    SELECT * INTO found FROM disputes WHERE id = NEW.id;
    SELECT count(*) INTO entries FROM dispute_steps WHERE dispute_id = NEW.id;
    SELECT * INTO last FROM dispute_steps WHERE dispute_id = NEW.id ORDER BY number DESC LIMIT 1;
    IF entries <> found.steps OR last.number <> found.steps OR last.status_after <> found.status THEN
        RAISE EXCEPTION 'dispute % was changed without an entry in its trail', NEW.id
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER dispute_has_its_trail AFTER INSERT OR UPDATE ON disputes
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION km_check_dispute_trail();
"""
REFUSE_CHANGE = """
CREATE FUNCTION km_refuse_dispute_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are never changed', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER dispute_is_not_deleted BEFORE DELETE ON disputes
    FOR EACH ROW EXECUTE FUNCTION km_refuse_dispute_change();
"""
FINAL = """
CREATE TRIGGER {table}_are_final BEFORE UPDATE OR DELETE ON {table}
    FOR EACH ROW EXECUTE FUNCTION km_refuse_dispute_change();
CREATE TRIGGER {table}_are_not_truncated BEFORE TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION km_refuse_dispute_change();
"""
FINAL_TABLES = ("disputed_requests", "dispute_steps")


def upgrade() -> None:
    _create_exports()
    _create_disputes()
    op.execute(TRAIL)
    op.execute(REFUSE_CHANGE)
    for table in FINAL_TABLES:
        op.execute(FINAL.format(table=table))


def _create_exports() -> None:
    op.create_table(
        "export_jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("file_format", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=True),
        sa.Column("start_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("filters", JSONB(none_as_null=True), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("total_rows", sa.BigInteger(), nullable=True),
        sa.Column("done_rows", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("sha256", sa.Text(), server_default="", nullable=False),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.CheckConstraint("kind IN ('events', 'rollups')", name=op.f("ck_export_jobs_kind")),
        sa.CheckConstraint("file_format IN ('csv', 'parquet')", name=op.f("ck_export_jobs_file_format")),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'done', 'failed', 'cancelled', 'expired')",
            name=op.f("ck_export_jobs_status"),
        ),
        sa.CheckConstraint("start_at < end_at", name=op.f("ck_export_jobs_span")),
        sa.CheckConstraint("(status = 'running') = (lease_until IS NOT NULL)", name=op.f("ck_export_jobs_lease")),
        sa.CheckConstraint(
            "status <> 'done' OR (sha256 <> '' AND expires_at IS NOT NULL)", name=op.f("ck_export_jobs_done")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_export_jobs")),
    )
    op.create_index(op.f("ix_export_jobs_requested_at_id"), "export_jobs", ["requested_at", "id"])
    op.create_index(
        "ix_export_jobs_unfinished",
        "export_jobs",
        ["requested_at"],
        postgresql_where=sa.text("status IN ('queued', 'running', 'done')"),
    )


def _create_disputes() -> None:
    op.create_table(
        "disputes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("period_text", sa.Text(), nullable=False),
        sa.Column("amount_text", sa.Text(), nullable=False),
        sa.Column("opened_by", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decision", sa.Text(), nullable=True),
        sa.Column("explanation", sa.Text(), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("request_count", sa.Integer(), nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "status IN ('open', 'under_review', 'decided', 'closed')", name=op.f("ck_disputes_status")
        ),
        sa.CheckConstraint("decision IN ('accepted', 'partly', 'rejected')", name=op.f("ck_disputes_decision")),
        sa.CheckConstraint(
            "status NOT IN ('decided', 'closed') OR decision IS NOT NULL", name=op.f("ck_disputes_decided")
        ),
        sa.CheckConstraint("steps > 0", name=op.f("ck_disputes_steps")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_disputes_account_id_accounts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_disputes")),
    )
    op.create_index(op.f("ix_disputes_opened_at_id"), "disputes", ["opened_at", "id"])
    op.create_index(op.f("ix_disputes_account_id_opened_at"), "disputes", ["account_id", "opened_at"])
    op.create_table(
        "disputed_requests",
        sa.Column("dispute_id", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("event", JSONB(none_as_null=True), nullable=False),
        sa.Column("added_in_step", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["dispute_id"], ["disputes.id"], name=op.f("fk_disputed_requests_dispute_id_disputes")
        ),
        sa.PrimaryKeyConstraint("dispute_id", "event_id", name=op.f("pk_disputed_requests")),
    )
    op.create_index(
        op.f("ix_disputed_requests_dispute_id_occurred_at_event_id"),
        "disputed_requests",
        ["dispute_id", "occurred_at", "event_id"],
    )
    op.create_table(
        "dispute_steps",
        sa.Column("dispute_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("internal", sa.Boolean(), nullable=False),
        sa.Column("status_before", sa.Text(), nullable=True),
        sa.Column("status_after", sa.Text(), nullable=False),
        sa.Column("details", JSONB(none_as_null=True), nullable=False),
        sa.CheckConstraint("number > 0", name=op.f("ck_dispute_steps_number")),
        sa.ForeignKeyConstraint(
            ["dispute_id"], ["disputes.id"], name=op.f("fk_dispute_steps_dispute_id_disputes")
        ),
        sa.PrimaryKeyConstraint("dispute_id", "number", name=op.f("pk_dispute_steps")),
    )


def downgrade() -> None:
    for table in reversed(FINAL_TABLES):
        op.drop_table(table)
    op.drop_table("disputes")
    op.drop_table("export_jobs")
    op.execute("DROP FUNCTION km_refuse_dispute_change")
    op.execute("DROP FUNCTION km_check_dispute_trail")
