"""Migrations bring an empty database to the tables the code knows, and back, and up again."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest
from alembic import command

import control_plane
from control_plane.entrypoints import migrations
from control_plane.entrypoints.migrations import MigrationsMissingError, alembic_config, script_location, upgrade

ROOT = Path(control_plane.__file__).parent.parent

NEW_ROWS = """
INSERT INTO accounts (id, external_id, name, created_at) VALUES ('acc_1', 'ada', 'Ada', now());
INSERT INTO api_keys (id, account_id, name, mode, key_hash, origin, scopes, created_at)
    VALUES ('key_1', 'acc_1', 'key', 'live', repeat('0', 64), 'imported', '{full}', now());
INSERT INTO api_products (id, code, name, service, routes, unit_maximums, created_at)
    VALUES ('prd_1', 'weather', 'Weather', 'weather', '{chat}', '{"*": {"tokens": 1}}', now());
INSERT INTO plans (id, code, name, api_product_id, position, visibility, created_at)
    VALUES ('plan_1', 'chat', 'Chat', 'prd_1', 0, 'public', now());
INSERT INTO plan_versions (id, plan_id, version, status, interval, currency, quota_units, quota_cap_units,
        concurrency_limit, concurrency_lease_ms, on_past_due, event_retention_days, created_at, published_at)
    VALUES ('ver_1', 'plan_1', 1, 'published', 'month', 'USD', 5, 9, 2, 60000, 'refuse', 400, now(), now());
INSERT INTO subscriptions (id, account_id, api_product_id, status, anchor_at, interval, started_at, created_at,
        spend_cap_minor, spend_cap_due_at)
    VALUES ('sub_1', 'acc_1', 'prd_1', 'active', date_trunc('hour', now()), 'month', now(), now(), 100, now());
INSERT INTO upgrade_hints (subscription_id, computed_at, basis, demand, offers)
    VALUES ('sub_1', now(), '', '{}', '[]');
INSERT INTO replay_hours (account_id, hour) VALUES ('acc_1', date_trunc('hour', now()));
INSERT INTO unmatched_replays (account_id, hour, call_hash, event_id, occurred_at_ms)
    VALUES ('acc_1', date_trunc('hour', now()), '0', 'evt_1', 1);
INSERT INTO usage_hourly (account_id, hour, phase_id, product, mode, key_id, endpoint, status, outcome, replayed,
        calls, units, billable_calls, billable_units, bytes_in, bytes_out, latency_ms_sum, gateway_ms_sum,
        revision)
    SELECT 'acc_1', date_trunc('hour', now()), '', 'weather', 'live', 'key_1', 'GET /', 200, 'served', replayed,
        2, 2, billed, billed, 0, 0, 0, 0, 1
    FROM (VALUES (false, 2), (true, 0)) AS rows (replayed, billed);
"""


def relations(url: str) -> set[str]:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        rows = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' "
            "UNION SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        )
        return {row[0] for row in rows}


class TestMigrations:
    def test_go_up_from_empty_without_drift_then_down_and_up_again(self, empty_database_url):
        upgrade(empty_database_url)
        config = alembic_config(empty_database_url)
        command.check(config)
        assert {"accounts", "plan_versions", "usage_hourly", "km_check_phases"} <= relations(empty_database_url)
        command.downgrade(config, "base")
        assert relations(empty_database_url) == {"alembic_version"}
        upgrade(empty_database_url)
        command.check(config)

    def test_go_down_and_up_with_rows_that_the_older_tables_cannot_hold(self, empty_database_url):
        upgrade(empty_database_url)
        with psycopg.connect(empty_database_url.replace("+psycopg", "")) as connection:
            connection.execute(NEW_ROWS)
        config = alembic_config(empty_database_url)
        command.downgrade(config, "v0004")
        with psycopg.connect(empty_database_url.replace("+psycopg", "")) as connection:
            assert connection.execute("SELECT hint FROM api_keys").fetchall() == [("",)]
            assert connection.execute("SELECT calls FROM usage_hourly").fetchall() == [(2,)]
            # the older rollup has no rows for replays: their hour is done again
            assert connection.execute("SELECT account_id, generation FROM touched_hours").fetchall() == [
                ("acc_1", 1)
            ]
        upgrade(empty_database_url)
        command.check(config)

    def test_hours_with_replays_are_known_and_done_again_after_down_and_up(self, empty_database_url):
        upgrade(empty_database_url)
        config, touched = alembic_config(empty_database_url), "SELECT account_id FROM touched_hours"
        with psycopg.connect(empty_database_url.replace("+psycopg", "")) as connection:
            connection.execute(NEW_ROWS)
        command.downgrade(config, "v0005")
        with psycopg.connect(empty_database_url.replace("+psycopg", "")) as connection:
            connection.execute("DELETE FROM touched_hours")  # the older code has billed them
        upgrade(empty_database_url)
        with psycopg.connect(empty_database_url.replace("+psycopg", "")) as connection:
            assert connection.execute("SELECT account_id FROM replay_hours").fetchall() == [("acc_1",)]
            assert connection.execute(touched).fetchall() == [("acc_1",)]
        command.check(config)

    def test_what_is_sealed_when_the_ledger_is_made_is_in_it_and_corrections_end_with_it(self, empty_database_url):
        upgrade(empty_database_url)
        config, plain = alembic_config(empty_database_url), empty_database_url.replace("+psycopg", "")
        command.downgrade(config, "v0007")
        with psycopg.connect(plain) as connection:
            connection.execute("""
                INSERT INTO usage_hours (account_id, hour, revision, sealed_at)
                    SELECT 'acc_1', date_trunc('hour', now()) - age, 3, sealed_at
                    FROM (VALUES (interval '0', now()), (interval '1 hour', NULL)) AS hours (age, sealed_at);
                INSERT INTO usage_hourly (account_id, hour, phase_id, product, mode, key_id, endpoint, status,
                        outcome, calls, units, billable_calls, billable_units, bytes_in, bytes_out,
                        latency_ms_sum, gateway_ms_sum, dimensions, billable_dimensions, revision)
                    SELECT 'acc_1', hour, 'ph_1', 'weather', mode, 'key_1', '', 200, 'served', 2, 4, billed,
                        2 * billed, 10, 20, 0, 0, '{"tokens": 5}', tokens::jsonb, 3
                    FROM usage_hours,
                        (VALUES ('live', 2, '{"tokens": 5}'), ('test', 0, '{}')) AS rows (mode, billed, tokens);
            """)
        command.upgrade(config, "v0008")
        ledger = "SELECT meter, units, delta_units, revision FROM usage_ledger ORDER BY meter"
        with psycopg.connect(plain) as connection:
            found = {meter: amounts for meter, *amounts in connection.execute(ledger).fetchall()}
            units = {"": 2, "bytes_in": 10, "bytes_out": 20, "requests": 4, "tokens": 5}
            assert found == {meter: [amount, amount, 3] for meter, amount in units.items()}
            connection.execute("""
                INSERT INTO usage_amendments (id, account_id, hour, phase_id, product, key_id, endpoint, calls,
                        meters, reason, author, created_at)
                    SELECT 'uam_1', 'acc_1', min(hour), 'ph_1', 'weather', '', '', -1, '{}', 'x', 'x', now()
                    FROM usage_hours;
                INSERT INTO usage_hourly (account_id, hour, phase_id, product, mode, key_id, endpoint, status,
                        outcome, amendment_id, calls, units, billable_calls, billable_units, bytes_in, bytes_out,
                        latency_ms_sum, gateway_ms_sum, revision)
                    SELECT 'acc_1', min(hour), 'ph_1', 'weather', 'live', '', '', 0, 'amended', 'uam_1', -1, 0,
                        -1, 0, 0, 0, 0, 0, 4
                    FROM usage_hours;
            """)
        command.downgrade(config, "v0007")
        with psycopg.connect(plain) as connection:
            assert connection.execute("SELECT count(*) FROM usage_hourly").fetchall() == [(4,)]
            assert connection.execute("SELECT account_id FROM touched_hours").fetchall() == [("acc_1",)]
        upgrade(empty_database_url)

    def test_processes_that_start_at_once_take_turns(self, empty_database_url):
        failures = []

        def run():
            command_line = [
                sys.executable,
                "-c",
                "import sys; from control_plane.entrypoints.migrations import upgrade;",
            ]
            command_line[-1] += "upgrade(sys.argv[1])"
            done = subprocess.run(
                [*command_line, empty_database_url], cwd=ROOT, capture_output=True, text=True, check=False
            )
            if done.returncode:
                failures.append(done.stderr)

        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert "accounts" in relations(empty_database_url)

    def test_the_alembic_command_reads_the_environment(self, empty_database_url):
        environment = {**os.environ, "KM_DATABASE_URL": empty_database_url}
        subprocess.run(
            [sys.executable, "-m", "alembic", "upgrade", "head"],
            cwd=ROOT, env=environment, check=True, capture_output=True,
        )  # fmt: skip
        assert "accounts" in relations(empty_database_url)

    def test_a_url_with_a_percent_sign_is_taken_literally(self, empty_database_url):
        upgrade(empty_database_url + "?application_name=a%20b")
        assert "accounts" in relations(empty_database_url)


class TestScriptLocation:
    def test_prefers_the_scripts_inside_an_installed_package(self, tmp_path, monkeypatch):
        package = tmp_path / "site-packages" / "control_plane"
        shutil.copytree(ROOT / "alembic", package / "alembic")
        monkeypatch.setattr(migrations, "PACKAGE", package)
        assert script_location() == package / "alembic"

    def test_says_so_where_there_are_none(self, tmp_path, monkeypatch):
        monkeypatch.setattr(migrations, "PACKAGE", tmp_path / "control_plane")
        with pytest.raises(MigrationsMissingError):
            script_location()
