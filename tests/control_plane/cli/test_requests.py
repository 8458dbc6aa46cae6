"""`km requests`, `km exports`, `km disputes` against a running server."""

import hashlib
import json
import zipfile

import pyarrow.parquet as pq
import pytest

from tests.control_plane.cli.conftest import Km, ServerProcess


def answer(result) -> object:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def account(km: Km) -> str:
    return answer(km("accounts", "create", "Acme", "--json"))["id"]


class TestRequests:
    def test_are_searched_with_and_without_an_account(self, km: Km, account: str):
        assert answer(km("requests", "list", "--json")) == []
        wanted = ("--account", account, "--status", "5xx", "--outcome", "served", "--oldest-first")
        assert answer(km("requests", "list", *wanted, "--json")) == []
        refused = km("requests", "list", "--account", account, "--unattributed")
        assert (refused.exit_code, "unattributed" in refused.stderr) == (1, True)
        unknown = km("requests", "show", "nothing")
        assert (unknown.exit_code, unknown.stderr) == (1, "km: There is no request nothing. (request_not_found)\n")


class TestExports:
    def test_are_created_waited_for_and_fetched(self, km: Km, server: ServerProcess, tmp_path):
        target = tmp_path / "events.parquet"
        made = answer(km("exports", "create", "--format", "parquet", "--wait", "-o", str(target), "--json"))
        assert (made["status"], made["done_rows"], pq.read_table(target).num_rows) == ("done", 0, 0)
        assert hashlib.sha256(target.read_bytes()).hexdigest() == made["sha256"]
        assert [path.name for path in tmp_path.iterdir()] == ["events.parquet"]
        rollups = answer(km("exports", "create", "--kind", "rollups", "--wait", "--json"))
        again = tmp_path / "rollups.csv"
        fetched = km("exports", "download", rollups["id"], "-o", str(again))
        assert (fetched.exit_code, again.read_text().startswith('"account_id","hour"')) == (0, True)
        listed = answer(km("exports", "list", "--status", "done", "--json"))
        assert [row["id"] for row in listed][:2] == [rollups["id"], made["id"]]
        shown = km("exports", "show", made["id"]).stdout
        assert made["sha256"] in shown

    def test_a_refusal_leaves_no_file(self, km: Km, tmp_path):
        target = tmp_path / "x.csv"
        for arguments in (
            ("download", f"exp_{'0' * 26}", "-o", str(target)),
            ("create", "-o", str(target)),
            ("create", "--wait", "--kind", "rollups", "--request", "a", "-o", str(target)),
        ):
            assert km("exports", *arguments).exit_code in {1, 2}
        assert list(tmp_path.iterdir()) == []


class TestDisputes:
    def test_a_case_is_opened_decided_and_shown(self, km: Km, account: str, tmp_path):
        opened = km("disputes", "open", account, "Double charges", "--amount", "$12", "--status", "5xx", "--json")
        case = answer(opened)["id"]
        assert km("disputes", "note", case, "they called", "--internal").exit_code == 0
        assert km("disputes", "review", case, "--text", "on it").exit_code == 0
        refused = km("disputes", "decide", case, "rejected", "no", "--void")
        assert (refused.exit_code, "void_requests" in refused.stderr) == (1, True)
        assert "decided" in km("disputes", "decide", case, "rejected", "Every call was served.").stdout
        assert km("disputes", "close", case).exit_code == 0
        assert km("disputes", "reopen", case, "--text", "new facts").exit_code == 0
        shown = km("disputes", "show", case).stdout
        for words in (
            "Double charges",
            "$12",
            "noted (internal)",
            "they called",
            "Every call was served.",
            "reopened",
        ):
            assert words in shown
        whole = answer(km("disputes", "show", case, "--json"))
        assert [entry["number"] for entry in whole["trail"]] == [1, 2, 3, 4, 5, 6]
        assert [row["id"] for row in answer(km("disputes", "list", "--account", account, "--json"))] == [case]
        target = tmp_path / "case.zip"
        assert km("disputes", "export", case, "-o", str(target)).exit_code == 0
        with zipfile.ZipFile(target) as archive:
            assert b"they called" not in archive.read("case.json")

    def test_adding_what_is_not_there_is_refused(self, km: Km, account: str):
        case = answer(km("disputes", "open", account, "x", "--json"))["id"]
        assert km("disputes", "add", case, "--event", "nothing").exit_code == 1
        refused = km("disputes", "add", case, "--status", "5xx")
        assert "no_requests_selected" in refused.stderr
