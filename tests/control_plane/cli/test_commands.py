"""`km` against a running server."""

import json
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import redis
import typer
import yaml

from control_plane.entrypoints import cli
from gateway_contract.api_keys import hash_api_key
from gateway_contract.redis_names import usage_stream
from tests.control_plane.cli.conftest import REPOSITORY, Km, ServerProcess, run_km

API_KEY = re.compile(r"km_(live|test)_[0-9A-Za-z]{38}")


def answer(result) -> object:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def an_account(km: Km, name: str = "Acme") -> str:
    return answer(km("accounts", "create", name, "--json"))["id"]


@pytest.fixture
def catalog(km: Km) -> None:
    assert km("plans", "apply", str(REPOSITORY / "plans.yml")).exit_code == 0


class TestAccounts:
    def test_create_show_list_suspend_resume(self, km: Km):
        account = an_account(km, "Ångström & Söhne")
        assert answer(km("accounts", "show", account, "--json"))["name"] == "Ångström & Söhne"
        listed = answer(km("accounts", "list", "--search", account, "--json"))
        assert [row["id"] for row in listed] == [account]
        assert answer(km("accounts", "suspend", account, "--json"))["status"] == "suspended"
        assert answer(km("accounts", "resume", account, "--json"))["status"] == "active"
        assert answer(km("accounts", "rename", account, "Other", "--json"))["name"] == "Other"

    def test_lists_more_than_a_page(self, km: Km):
        made = {an_account(km, f"paged {number}") for number in range(3)}
        found = answer(km("accounts", "list", "--search", "paged", "--at-most", "2", "--json"))
        assert len(found) == 2
        assert {row["id"] for row in found} < made

    def test_into_a_pipe_go_tab_separated_lines(self, km: Km):
        account = an_account(km, "piped account")
        lines = km("accounts", "list", "--search", "piped account").stdout.splitlines()
        assert lines[0].split("\t") == ["id", "name", "status", "currency", "created_at"]
        assert lines[1].split("\t")[:3] == [account, "piped account", "active"]


SHIPPED = ["enterprise", "growth", "starter", "free"]


class TestPlans:
    def test_a_plan_file_is_compared_and_applied_once(self, km: Km, tmp_path: Path):
        plan_file = str(REPOSITORY / "plans.yml")
        km("plans", "apply", plan_file)
        assert "Nothing would change." in km("plans", "diff", plan_file).stdout
        changed = tmp_path / "plans.yml"
        changed.write_text(Path(plan_file).read_text().replace('"49.00"', '"59.00"'))
        difference = km("plans", "diff", str(changed))
        assert "plan starter: new version" in difference.stdout
        assert "59.00" in difference.stdout
        again = km("plans", "diff", "-", stdin=changed.read_text())
        assert again.stdout == difference.stdout

    def test_shows_the_price_list(self, km: Km, catalog: None):
        lines = [line.split("\t") for line in km("plans", "list").stdout.splitlines()]
        listed = {line[1]: dict(zip(lines[0], line, strict=True)) for line in lines[1:]}
        # other tests on the same server have plans of their own
        assert [code for code in listed if code in SHIPPED] == SHIPPED
        starter = listed["starter"]
        assert starter["quota"] == "50,000 then charged"
        assert starter["limits"] == "10/s, 300/min"
        assert starter["price"] == "49.00 USD/month + 0.0015 USD/request"
        assert "refused" in listed["free"]["quota"]
        assert [version["status"] for version in answer(km("plans", "show", "starter", "--json"))["versions"]]

    def test_a_wrong_field_is_named_by_its_path(self, km: Km, tmp_path: Path):
        wrong = tmp_path / "plans.yml"
        wrong.write_text(
            (REPOSITORY / "plans.yml").read_text().replace('unit_amount: "0.0006"', "unit_amount: -1")
        )
        result = km("plans", "apply", str(wrong))
        assert result.exit_code == 1
        assert re.search(r"^km: plans\[1\]\.prices\[1\]\.unit_amount: ", result.stderr, re.MULTILINE)

    def test_openapi_documents_are_sent_along(self, km: Km, tmp_path: Path):
        (tmp_path / "maps.json").write_text(
            json.dumps({"openapi": "3.1.0", "info": {}, "paths": {"/tiles/{tile}": {"get": {}}}})
        )
        plan_file = tmp_path / "plans.yml"
        plan_file.write_text(
            "api_products:\n"
            "  - {code: maps, name: Maps, service: maps, routes: [maps]}\n"
            "  - code: tiles\n    name: Tiles\n    service: tiles\n    routes: [tiles]\n"
            "    openapi: maps.json  # beside this file\n"
            "plans: []\n"
        )
        assert "api-product tiles: create" in km("plans", "diff", str(plan_file)).stdout
        (tmp_path / "maps.json").unlink()
        result = km("plans", "diff", str(plan_file))
        assert result.exit_code == 1
        assert "api_products[1].openapi" in result.stderr


TRIED = [
    {"code": "tried", "name": "Tried", "api_product": "weather", "trial": {"days": 14}, "position": 8},
    {"code": "tried-pro", "name": "Pro", "api_product": "weather", "position": 9},
]
EXTRA = {"code": "extra", "name": "Extra", "api_product": "weather", "position": 10}
LONG_AGO = "2026-01-01T00:00:00Z"


class TestSubscriptionsAndKeys:
    def test_from_account_to_invoice(self, km: Km, catalog: None):
        account = an_account(km)
        subscription = answer(km("subscriptions", "create", account, "starter", "--json"))
        assert (subscription["plan"], subscription["status"]) == ("starter", "active")
        preview = km("invoices", "preview", account, "weather")
        assert re.search(r"Starter plan\t\$49\.00\t\$49\.00", preview.stdout), preview.stdout
        assert "0 of 50,000 used" in preview.stdout
        change = km("subscriptions", "change", subscription["id"], "growth", "--at", "period_end", "--json")
        assert [phase["plan"] for phase in answer(change)["phases"]] == ["starter", "growth"]
        assert answer(km("subscriptions", "cancel", subscription["id"], "--json"))["ends_at"]
        assert answer(km("subscriptions", "keep", subscription["id"], "--json"))["ends_at"] is None
        assert len(answer(km("subscriptions", "list", account, "--json"))) == 1

    def test_status_and_limits_of_its_own(self, km: Km, catalog: None):
        subscription = answer(km("subscriptions", "create", an_account(km), "starter", "--json"))["id"]
        late = answer(km("subscriptions", "status", subscription, "past_due", "--json"))
        assert late["status"] == "past_due"
        assert answer(km("subscriptions", "status", subscription, "active", "--json"))["status"] == "active"
        own = ("--limit", "100/second", "--limit", "2000/minute", "--quota-units", "70000")
        given = answer(km("subscriptions", "override", subscription, *own, "--json"))
        assert [window["limit"] for window in given["windows_override"]] == [100, 2000]
        assert given["quota_units_override"] == 70_000
        back = answer(km("subscriptions", "override", subscription, "--plan-limits", "--json"))
        assert (back["windows_override"], back["quota_units_override"]) == (None, 70_000)
        assert km("subscriptions", "override", subscription).exit_code == 2

    def test_trials_changes_pauses_and_add_ons(self, km: Km, tmp_path: Path):
        plan_file = tmp_path / "plans.yml"
        sold = yaml.safe_load((REPOSITORY / "plans.yml").read_text())
        for plan, amount in zip(TRIED, (9, 99), strict=True):
            sold["plans"].append({**plan, "prices": [{"model": "flat", "amount": amount}]})
        sold["add_ons"] = [{**EXTRA, "prices": [{"model": "flat", "amount": 5}]}]
        plan_file.write_text(yaml.safe_dump(sold))
        applied = km("plans", "apply", str(plan_file))
        assert applied.exit_code == 0, applied.stderr
        account = an_account(km)
        began = km("subscriptions", "create", account, "tried")
        assert re.search(r"tried\t1\ttrial\t", began.stdout), began.stdout
        subscription = re.search(r"sub_\w+", began.stdout)[0]
        assert "status                trialing" in km("subscriptions", "show", subscription).stdout
        assert (
            "must be after the trial's end" in km("subscriptions", "extend-trial", subscription, LONG_AGO).stderr
        )
        preview = km("invoices", "preview", account, "weather").stdout
        assert re.search(r"In the trial, which lasts until 20\S+:00Z, nothing is charged\.", preview), preview
        assert "\nTotal\t\t$9.00\n" in preview
        ended = answer(km("subscriptions", "end-trial", subscription, "--json"))
        assert (ended["status"], ended["trial_ends_at"]) == ("active", ended["phases"][1]["starts_at"])
        assert ended["trial_ends_at"] > ended["started_at"]
        assert km("subscriptions", "change", subscription, "tried-pro").stderr == "In force now.\n"
        assert "Planned for 20" in km("subscriptions", "change", subscription, "tried").stderr
        assert len(answer(km("subscriptions", "discard-change", subscription, "--json"))["phases"]) == 3
        added = km("subscriptions", "add-on", "add", subscription, "extra", "--quantity", "2")
        assert "extra\t1\t2\t" in added.stdout
        assert "extra\t1\t5\t" in km("subscriptions", "add-on", "quantity", subscription, "extra", "5").stdout
        planned = answer(km("subscriptions", "add-on", "remove", subscription, "extra", "--json"))
        assert planned["add_ons"][0]["ends_at"] == planned["current_period"]["end"]
        km("subscriptions", "add-on", "keep", subscription, "extra")
        assert answer(km("subscriptions", "add-on", "list", subscription, "--json"))[0]["ends_at"] is None
        for command, status in (("pause", "paused"), ("resume", "active")):
            assert answer(km("subscriptions", command, subscription, "--json"))["status"] == status
        ended = answer(km("subscriptions", "cancel", subscription, "--at", "now", "--credit-unused", "--json"))
        assert (ended["status"], ended["unused_time"]) == ("canceled", "credited")

    def test_a_key_is_shown_once(self, km: Km):
        account = an_account(km)
        issued = km("keys", "issue", account, "--name", "web", "--limit", "5/second", "--ip-range", "10.0.0.0/8")
        assert issued.exit_code == 0, issued.stderr
        text = API_KEY.search(issued.stdout)[0]
        listed = km("keys", "list", account, "--json")
        assert text not in listed.stdout
        (key,) = answer(listed)
        assert key["hint"].endswith(text[-4:])
        assert key["windows"] == [{"limit": 5, "window_ms": 1000}]
        assert text not in km("audit", "--entity", key["id"], "--json").stdout

    def test_restrict_rotate_and_revoke(self, km: Km):
        account = an_account(km)
        issued = answer(km("keys", "issue", account, "--json"))
        key = issued["key"]["id"]
        assert hash_api_key(issued["text"]) in km("keys", "show", key).stdout
        updated = answer(km("keys", "update", key, "--scope", "read_only", "--json"))
        assert updated["scopes"] == ["read_only"]
        rotated = answer(km("keys", "rotate", key, "--overlap", "24h", "--json"))
        assert rotated["key"]["scopes"] == ["read_only"]
        assert answer(km("keys", "show", key, "--json"))["expires_at"] is not None
        assert answer(km("keys", "revoke", rotated["key"]["id"], "--json"))["status"] == "revoked"


KONG = """
_format_version: "3.0"
consumers:
  - username: {name}
    keyauth_credentials: [{{key: {key}, tags: [web]}}, {{key: {key}-2}}]
    plugins:
      - {{name: rate-limiting, config: {{minute: 60, policy: local}}}}
  - username: {name}-other
    keyauth_credentials: [{{key: other-{key}}}, {{key: "bad key"}}]
"""


class TestKeysImport:
    @pytest.fixture
    def command(self, catalog: None, tmp_path: Path) -> tuple[str, ...]:
        text = KONG.format(name=tmp_path.name, key=f"secret-{tmp_path.name}-012345")
        (tmp_path / "kong.yml").write_text(text)
        return ("keys", "import", str(tmp_path / "kong.yml"), "--api-product", "weather", "--plan", "starter")

    def test_reports_what_was_done_and_what_was_refused(self, km: Km, command: tuple[str, ...], tmp_path: Path):
        planned = km(*command, "--dry-run")
        assert "this was a dry run" in planned.stderr
        assert answer(km("accounts", "list", "--search", tmp_path.name, "--json")) == []
        done = km(*command)
        assert done.exit_code == 1  # one account is refused
        rows = [line.split("\t") for line in done.stdout.splitlines()]
        by_account = {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[1:]}
        made = by_account[tmp_path.name]
        assert (made["outcome"], made["plan"], made["keys_created"]) == ("created", "starter", "2")
        assert by_account[f"{tmp_path.name}-other"]["reason"].endswith("8 to 512 visible ASCII characters")
        assert "accounts: 1 created, 0 existing, 1 refused; keys: 2 created, 0 existing" in done.stderr
        assert "imported_keys: true" in done.stderr
        assert "{ limit: 60, per: minute }" in done.stderr
        keys = answer(km("keys", "list", made["account_id"], "--json"))
        assert {key["name"] for key in keys} == {"web", "key-auth"}

    def test_no_key_is_shown_sent_or_logged(
        self, km: Km, command: tuple[str, ...], server: ServerProcess, tmp_path: Path
    ):
        done = km(*command)
        everything = done.stdout + done.stderr + km("audit", "--json").stdout + server.log_path.read_text()
        assert f"secret-{tmp_path.name}" not in everything
        assert "keys: 2 created" in done.stderr

    def test_a_second_time_nothing_is_created(self, km: Km, command: tuple[str, ...]):
        km(*command)
        again = json.loads(km(*command, "--json").stdout)["accounts"]
        assert sum(row.get("keys_created", 0) for row in again) == 0
        assert sorted(row["outcome"] for row in again) == ["existing", "refused"]

    def test_goes_in_batches(self, km: Km, catalog: None, tmp_path: Path):
        credentials = [{"key": f"{tmp_path.name}-{number:05}", "consumer": {"id": f"c{number % 900}"}}
                       for number in range(2_300)]  # fmt: skip
        (tmp_path / "keys.json").write_text(json.dumps({"data": credentials}))
        done = km("keys", "import", str(tmp_path / "keys.json"), "--api-product", "weather", "--plan", "starter")
        assert done.exit_code == 0, done.stderr
        assert "accounts: 900 created, 0 existing, 0 refused; keys: 2,300 created" in done.stderr
        assert done.stdout == ""

    def test_a_file_of_another_kind_is_one_line_without_its_content(self, km: Km, tmp_path: Path):
        (tmp_path / "kong.yml").write_text("consumers:\n  - key: 'very-secret-key\n")
        failed = km("keys", "import", str(tmp_path / "kong.yml"), "--api-product", "weather", "--plan", "starter")
        assert (failed.exit_code, len(failed.stderr.splitlines())) == (1, 1)
        assert "very-secret-key" not in failed.stderr


class TestOtherCommands:
    def test_usage_and_events_of_an_account_without_calls(self, km: Km):
        account = an_account(km)
        assert answer(km("usage", account, "--by", "status,endpoint", "--json"))["items"] == []
        assert answer(km("events", account, "--json")) == []

    def test_the_event_store_says_what_it_holds(self, km: Km):
        header, events, letters = km("events", "status").stdout.splitlines()
        assert header.split("\t")[:4] == ["table", "rows", "bytes", "bytes_per_row"]
        assert [events.split("\t")[0], letters.split("\t")[0]] == ["usage_events", "usage_dead_letters"]
        assert [table["table"] for table in answer(km("events", "status", "--json"))["tables"]] == [
            "usage_events",
            "usage_dead_letters",
        ]

    def test_a_copy_that_cannot_be_made_is_one_line(self, km: Km, tmp_path: Path):
        refused = km(
            "events", "copy", "--from", f"chdb://{tmp_path}/none", "--to", "clickhouse://127.0.0.1:1/none"
        )
        assert (refused.exit_code, refused.stderr) == (1, f"km: {tmp_path}/none: there is no event store\n")

    def test_calls_of_nobody_are_asked_for_by_name(self, km: Km):
        assert answer(km("events", "--unattributed", "--json")) == []
        assert km("events").exit_code == 2
        assert km("events", an_account(km), "--unattributed").exit_code == 2

    def test_products_are_made_and_changed(self, km: Km, catalog: None):
        parts = ["--name", "Forecasts", "--service", "weather", "--route", "forecasts"]
        parts += ["--endpoint", "GET /v2/{city}", "--route-units", "forecasts=5"]
        made = km("products", "create", "forecasts", *parts, "--json")
        assert answer(made)["endpoints"] == [{"method": "GET", "path_template": "/v2/{city}"}]
        changed = km("products", "update", "forecasts", "--unit-header", "tokens=x-tokens", "--json")
        assert answer(changed)["unit_headers"] == {"tokens": "x-tokens"}
        assert answer(changed)["route_units"] == {"forecasts": 5}

    def test_the_audit_log_says_who_and_what(self, km: Km):
        account = an_account(km)
        km("accounts", "suspend", account)
        rows = answer(km("audit", "--entity", account, "--json"))
        assert [row["action"] for row in rows] == ["account.suspended", "account.created"]
        assert all(row["actor"].startswith("token:tok_") for row in rows)

    def test_tokens_are_made_shown_once_and_revoked(self, km: Km):
        created = answer(km("tokens", "create", "ci", "--role", "read_only", "--json"))
        token = created["text"]
        assert km("accounts", "list", KM_TOKEN=token).exit_code == 0
        refused = km("accounts", "create", "Acme", KM_TOKEN=token)
        assert (refused.exit_code, refused.stderr) == (
            1,
            "km: A token with the role read_only may not do this. (role_not_allowed)\n",
        )
        km("tokens", "revoke", created["token"]["id"])
        assert km("accounts", "list", KM_TOKEN=token).exit_code == 1
        assert token not in km("tokens", "list", "--json").stdout

    def test_a_rebuild_counts_what_it_wrote(self, km: Km):
        account = an_account(km)
        km("keys", "issue", account)
        report = answer(km("rebuild", "--json"))
        assert report["accounts"] >= 1
        assert report["keys"] >= 1


class TestErrors:
    def test_name_the_field_in_one_line(self, km: Km):
        result = km("accounts", "create", "Acme", "--currency", "XXX")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "km: currency: must be an ISO 4217 code such as USD\n"

    def test_name_what_is_not_there(self, km: Km):
        result = km("invoices", "preview", an_account(km), "nothing")
        assert (result.exit_code, result.stderr) == (
            1,
            "km: There is no API product nothing. (api_product_not_found)\n",
        )

    def test_say_where_the_token_comes_from(self, km: Km, tmp_path: Path):
        result = km("accounts", "list", KM_TOKEN=None)
        assert result.exit_code == 1
        assert result.stderr.startswith("km: no token: set KM_TOKEN")
        missing = km("accounts", "list", KM_TOKEN=None, KM_TOKEN_FILE=str(tmp_path / "none"))
        assert "KM_TOKEN_FILE" in missing.stderr

    def test_a_token_file_is_read(self, km: Km, server: ServerProcess, tmp_path: Path):
        (tmp_path / "token").write_text(server.env["KM_TOKEN"] + "\n")
        assert km("accounts", "list", KM_TOKEN=None, KM_TOKEN_FILE=str(tmp_path / "token")).exit_code == 0

    @pytest.mark.parametrize(
        ("url", "words"),
        [("http://127.0.0.1:9", "cannot reach http://127.0.0.1:9"), ("127.0.0.1", "not an http or https address")],
    )
    def test_say_that_there_is_no_server(self, km: Km, url: str, words: str):
        result = km("accounts", "list", KM_URL=url)
        assert result.exit_code == 1
        assert words in result.stderr
        assert len(result.stderr.splitlines()) == 1

    @pytest.mark.parametrize(
        "arguments",
        [
            ("accounts", "create"),
            ("accounts", "sing"),
            ("keys", "issue", "acc_1", "--limit", "5/fortnight"),
            ("keys", "rotate", "key_1", "--overlap", "soon"),
            ("keys", "update", "key_1"),
            ("products", "update", "weather", "--route-units", "x=y"),
            ("accounts", "list", "--at-most", "0"),
        ],
    )
    def test_wrong_usage_ends_with_2(self, km: Km, arguments: tuple[str, ...]):
        assert km(*arguments).exit_code == 2


class TestProgram:
    def test_starts_without_loading_what_only_the_server_needs(self):
        code = (
            "import sys\nfrom control_plane.entrypoints.cli import create_cli\ncreate_cli(own_only=True)\n"
            "print(sorted({'sqlalchemy', 'fastapi', 'httpx', 'redis', 'pydantic', 'uvicorn'} & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "[]"

    def test_shows_its_version(self):
        done = run_km("--version", env={"PATH": "/usr/bin"})
        assert done.stdout.startswith("kong-monetize ")

    def test_a_broken_command_of_another_package_is_named_and_left_out(self, monkeypatch, capsys):
        broken = EntryPoint(name="broken", value="no.such.module:register", group=cli.GROUP)
        monkeypatch.setattr(cli, "entry_points", lambda **_: [broken])
        app = cli.create_cli()
        assert isinstance(app, typer.Typer)
        assert "no.such.module:register left out" in capsys.readouterr().err

    def test_every_command_is_in_the_documentation(self):
        text = (REPOSITORY / "docs" / "cli.md").read_text()
        app = cli.create_cli(own_only=True)
        for command in app.registered_commands:
            assert f"`km {command.name}" in text, command.name
        for group in app.registered_groups:
            row = "\n".join(line for line in text.splitlines() if f"`km {group.name} " in line)
            for command in group.typer_instance.registered_commands:
                assert f"{command.name}`" in row or f"{command.name} " in row, (group.name, command.name)


class TestDeadLetters:
    def test_are_listed_shown_replayed_and_dismissed(self, km: Km, server: ServerProcess):
        shipper = f"node_{time.time_ns()}"
        fields = {"shipper": shipper, "segment": "seg-1", "start": 0, "end": 20, "shipped_up_to_ms": 0}
        with redis.Redis.from_url(server.env["KM_REDIS_URL"]) as client:
            client.xadd(usage_stream(0), {**fields, "lines": b"{nonsense\n{more"})
        options = ("usage", "dead-letters", "list", "--shipper", shipper, "--json")
        deadline = time.monotonic() + 30
        while len(found := answer(km(*options))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        first, second = (letter["id"] for letter in found)
        assert "{" in km("usage", "dead-letters", "show", first).stdout
        replayed = km("usage", "dead-letters", "replay", first, second, "--reason", "try again")
        assert replayed.exit_code == 1
        assert "2 of 2 are still open" in replayed.stderr
        assert km("usage", "dead-letters", "dismiss", "--reason", "x").exit_code == 2
        dismissed = km("usage", "dead-letters", "dismiss", "--all", "--shipper", shipper, "--reason", "noise")
        assert dismissed.exit_code == 0, dismissed.stderr
        assert answer(km(*options)) == []
        states = {letter["state"] for letter in answer(km(*options, "--state", ""))}
        assert states == {"dismissed"}


class TestMeters:
    def test_are_declared_shown_filled_up_and_archived(self, km: Km, tmp_path: Path):
        file = tmp_path / "metered.yml"
        file.write_text(
            "api_products: [{code: metered, name: Metered, service: metered, routes: [metered]}]\n"
            "meters: [{code: jobs, name: Jobs, api_product: metered, aggregation: count, events: reported}]\n"
            "plans: [{code: by-job, name: By job, api_product: metered,"
            " prices: [{model: per_unit, meter: jobs, unit_amount: 0.1}]}]\n"
        )
        assert "meter jobs: create" in km("plans", "apply", str(file)).stdout
        options = ("--name", "Users", "--product", "metered", "--aggregation", "unique", "--events", "reported")
        filters = ("--value", "properties.user", "--where", "plan=gold", "--event-type", "login")
        made = km("meters", "create", "users", *options, *filters)
        assert "event_types: login; properties: plan=gold" in made.stdout
        listed = km("meters", "list", "--product", "metered").stdout.splitlines()
        assert [line.split("\t")[0] for line in listed] == ["code", "jobs", "users"]
        assert "event_types: login; properties: plan=gold" in listed[2]
        assert "by-job\t1\tpublished\tper_unit" in km("meters", "show", "jobs").stdout
        assert "0 of 0" in km("meters", "backfill", "jobs").stdout
        assert km("meters", "backfills", "jobs").stdout.count("mbf_") == 1
        exported = km("plans", "export").stdout
        assert "  code: jobs\n" in exported.replace("- code", "  code")
        assert km("plans", "diff", "-", stdin=exported).stdout == "Nothing would change.\n"
        account = an_account(km)
        km("subscriptions", "create", account, "by-job")
        assert answer(km("meters", "values", "--account", account, "--json")) == []
        assert answer(km("meters", "values", "--by", "hour", "--meter", "jobs", "--json")) == []
        assert km("meters", "archive", "jobs").stderr.startswith("km: Meter jobs is counted by plan by-job")
        assert "archived_at  20" in km("meters", "archive", "users").stdout

    def test_options_are_checked(self, km: Km):
        options = ("--name", "X", "--product", "metered", "--aggregation", "count")
        assert km("meters", "create", "x", *options, "--weight", "metered=many").exit_code == 2
        assert km("meters", "create", "x", *options, "--where", "plan").exit_code == 2


class TestCorrections:
    WHY = ("--reason", "ticket 4711")

    def test_an_hour_is_amended_listed_and_put_right_again(self, km: Km, catalog: None):
        account = an_account(km)
        assert km("subscriptions", "create", account, "starter").exit_code == 0
        hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0).isoformat()
        amounts = ("--calls", "2", "--meter", "requests=2", "--reference", "D-1")
        made = answer(km("usage", "amend", account, hour, "weather", *amounts, *self.WHY, "--json"))
        assert (made["calls"], made["meters"], made["reference"]) == (2, {"requests": 2}, "D-1")
        withdrawn = answer(km("usage", "withdraw", made["id"], *self.WHY, "--json"))
        assert withdrawn["withdrawal"]["reason"] == "ticket 4711"
        assert answer(km("usage", "corrections", account, "--amendments", "--json")) == [withdrawn]
        assert answer(km("usage", "corrections", account, "--json")) == []

    def test_what_cannot_be_is_refused(self, km: Km, catalog: None):
        place = (an_account(km), "2026-11-01T00:00:00Z")
        for arguments, exit_code in (
            (("void", *place, "emitter-1", *self.WHY), 1),
            (("void", *place, "emitter-1"), 2),
            (("amend", *place, "weather", "--meter", "requests", *self.WHY), 2),
            (("amend", *place, "weather", "--calls", "1", *self.WHY), 1),
            (("withdraw", "acc_1", *self.WHY), 1),
        ):
            assert km("usage", *arguments).exit_code == exit_code

    def test_usage_is_asked_for_as_of_a_moment(self, km: Km):
        asked = answer(km("usage", an_account(km), "--as-of", "2026-01-01T00:00:00Z", "--json"))
        assert (asked["as_of"], asked["items"]) == ("2026-01-01T00:00:00.000Z", [])


class TestInvoices:
    def test_from_a_draft_to_a_credit_note(self, km: Km, tmp_path: Path):
        account = an_account(km)
        profile = ("--legal-name", "Acme GmbH", "--address", "Street 1", "--country", "DE")
        assert "Acme GmbH" in km("billing-profile", "set", account, *profile).stdout
        km("billing-profile", "set", account, "--city", "Bonn")
        kept = answer(km("billing-profile", "show", account, "--json"))
        assert (kept["address_lines"], kept["city"]) == (["Street 1"], "Bonn")
        km("balance", "adjust", account, "5.00", "--reason", "apology")
        km("balance", "adjust", account, "-1.00", "--reason", "taken back")
        assert "USD\t$4.00" in km("balance", "show", account).stdout
        assert "-$1.00\t$4.00\ttaken back" in km("balance", "entries", account).stdout
        drafted = km("invoices", "draft", account, "--line", "Support=120.00", "--line", "Hours=3x80", "--json")
        invoice = answer(drafted)["id"]
        assert "3\tExtra\t\t$1.50" in km("invoices", "add-line", invoice, "Extra=1.5").stdout
        assert "Extra" not in km("invoices", "remove-line", invoice, "3").stdout
        assert "less account balance\t\t$4.00" in km("invoices", "finalise", invoice).stdout
        number = answer(km("invoices", "show", invoice, "--json"))["number"]
        assert answer(km("invoices", "show", number, "--json"))["id"] == invoice
        assert km("invoices", "show", "INV-999999").stderr == "km: There is no invoice INV-999999.\n"
        paid = km("invoices", "pay", number, "--reference", "wire 1", "--amount", "100").stdout
        assert "Left to pay\t\t$256.00" in paid
        assert "payment\t$100.00\twire 1" in paid
        assert "$80.00 = $240.00." in km("invoices", "show", number, "--explain").stdout
        credit = ("credit", invoice, "--reason", "goodwill", "--key", "k1", "--line", "2=80")
        note = answer(km("invoices", *credit, "--json"))
        assert note["number"] in km("invoices", "credit-notes", "--account", account).stdout
        assert "$176.00" in km("invoices", "list", "--account", account, "--status", "open").stdout
        for one in (invoice, note["id"]):
            km("invoices", "pdf", one, "--to", str(tmp_path / f"{one}.pdf"))
            assert (tmp_path / f"{one}.pdf").read_bytes().startswith(b"%PDF-")
        refused = km("invoices", "void", invoice, "--reason", "wrong")
        assert (refused.exit_code, "invoice_not_voidable" in refused.stderr) == (1, True)
        other = answer(km("invoices", "draft", account, "--json"))["id"]
        assert "discarded" in km("invoices", "discard", other).stdout

    @pytest.mark.parametrize("command", ["grant", "sell"])
    def test_amounts_below_zero_are_refused_by_their_name(self, km: Km, command: str):
        refused = km("credits", command, an_account(km), "-1")
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert refused.stderr.startswith("km: amount: must be a number from 0, ")

    @pytest.mark.parametrize("line", ["Support", "=5", "Hours=ax80"])
    def test_says_how_a_line_is_written(self, km: Km, line: str):
        result = km("invoices", "draft", "acc_x", "--line", line)
        assert result.exit_code == 2
