"""Promises that the database keeps itself: published terms and the audit log never change, phases have no gaps."""

from alembic import op

revision = "v0002"
down_revision = "v0001"
branch_labels = None
depends_on = None

AUDIT_LOG = """
CREATE FUNCTION km_refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is never changed' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER audit_log_is_final BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION km_refuse_audit_change();
CREATE TRIGGER audit_log_is_not_truncated BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION km_refuse_audit_change();
"""

# A version may leave `draft` once, and then only go from `published` to `superseded`.
PLAN_VERSIONS = """
CREATE FUNCTION km_refuse_published_version_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    allowed plan_versions%ROWTYPE;
BEGIN
    IF OLD.status = 'draft' THEN
        IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
        RETURN NEW;
    END IF;
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
CREATE TRIGGER published_version_is_final BEFORE UPDATE OR DELETE ON plan_versions
    FOR EACH ROW EXECUTE FUNCTION km_refuse_published_version_change();
"""

# FOR SHARE waits for a version that is being published at this moment.
PRICES = """
CREATE FUNCTION km_refuse_published_price_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    touched text[] := '{}';
BEGIN
    IF TG_OP <> 'INSERT' THEN touched := touched || OLD.plan_version_id; END IF;
    IF TG_OP <> 'DELETE' THEN touched := touched || NEW.plan_version_id; END IF;
    PERFORM 1 FROM plan_versions WHERE id = ANY (touched) FOR SHARE;
    IF EXISTS (SELECT 1 FROM plan_versions WHERE id = ANY (touched) AND status <> 'draft') THEN
        RAISE EXCEPTION 'plan version % was published: its prices are final', touched
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER published_price_is_final BEFORE INSERT OR UPDATE OR DELETE ON prices
    FOR EACH ROW EXECUTE FUNCTION km_refuse_published_price_change();
"""

# Deferred to the commit: an operation closes one phase and opens the next in two statements.
PHASES = """
CREATE FUNCTION km_check_phases() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    subscription text;
BEGIN
    IF TG_OP = 'DELETE' THEN subscription := OLD.subscription_id; ELSE subscription := NEW.subscription_id; END IF;
    IF EXISTS (
        SELECT 1 FROM (
            SELECT starts_at,
                   lag(ends_at) OVER chain AS previous_end,
                   row_number() OVER chain AS place
            FROM subscription_phases
            WHERE subscription_id = subscription
            WINDOW chain AS (ORDER BY starts_at)
        ) AS phases
        WHERE place > 1 AND previous_end IS DISTINCT FROM starts_at
    ) THEN
        RAISE EXCEPTION 'phases of subscription % have a gap or an overlap', subscription
            USING ERRCODE = 'exclusion_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER phases_follow_each_other AFTER INSERT OR UPDATE OR DELETE ON subscription_phases
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION km_check_phases();
"""

DROP = """
DROP TRIGGER phases_follow_each_other ON subscription_phases;
DROP FUNCTION km_check_phases;
DROP TRIGGER published_price_is_final ON prices;
DROP FUNCTION km_refuse_published_price_change;
DROP TRIGGER published_version_is_final ON plan_versions;
DROP FUNCTION km_refuse_published_version_change;
DROP TRIGGER audit_log_is_final ON audit_log;
DROP TRIGGER audit_log_is_not_truncated ON audit_log;
DROP FUNCTION km_refuse_audit_change;
"""


def upgrade() -> None:
    for statements in (AUDIT_LOG, PLAN_VERSIONS, PRICES, PHASES):
        op.execute(statements)


def downgrade() -> None:
    op.execute(DROP)
