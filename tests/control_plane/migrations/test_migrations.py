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
