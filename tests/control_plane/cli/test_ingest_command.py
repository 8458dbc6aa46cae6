"""Events from a file and from the client, into a real server, which may be killed."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.ports import free_port
from kong_monetize_client import Client, Options
from tests.control_plane.cli.conftest import REPOSITORY, STARTS_WITHIN_SECONDS, Km, ServerProcess

REPORTED = 600


@pytest.fixture(scope="module")
def server(server_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """On one port for good, so that it can be killed and come back."""
    arguments = ("serve", "--port", str(free_port()))
    process = ServerProcess(server_env, tmp_path_factory.mktemp("log") / "server.log", arguments)
    process.start()
    process.wait_until_ready()
    yield process
    process.stop()


def answer(result) -> dict:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def catalog_applied() -> list[bool]:
    return []


@pytest.fixture
def account(km: Km, catalog_applied: list[bool]) -> str:
    if not catalog_applied:
        assert km("plans", "apply", str(REPOSITORY / "plans.yml")).exit_code == 0
        catalog_applied.append(True)
    account = answer(km("accounts", "create", "Acme", "--json"))["id"]
    assert km("subscriptions", "create", account, "starter").exit_code == 0
    return account


@pytest.fixture
def token(km: Km) -> str:
    """A token that may only report events."""
    return answer(km("tokens", "create", "app", "--role", "ingest", "--json"))["text"]


def event(account: str, number: int, **changes: object) -> str:
    fields = {
        "specversion": "1.0",
        "id": f"{account}-{number}",
        "source": "/shop",
        "type": "sold",
        "subject": account,
        "data": {"units": {"transactions": 1}},
    }
    return json.dumps(fields | changes)


def reported_of(km: Km, account: str) -> dict[str, int]:
    """Return events by outcome, as usage shows them."""
    items = answer(km("usage", account, "--by", "outcome", "--json"))["items"]
    return {item["by"]["outcome"]: item["reported_events"] for item in items}


def wait_for(km: Km, account: str, reported: int) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_SECONDS
    while reported_of(km, account) != {"reported": reported}:
        assert time.monotonic() < deadline, reported_of(km, account)
        time.sleep(0.1)


class TestFiles:
    def test_are_sent_once_however_often(self, km: Km, account: str, token: str, tmp_path: Path):
        file = tmp_path / "events.jsonl"
        file.write_text("\n".join(event(account, number) for number in range(1200)) + "\n\n")
        for expected in ("accepted", "duplicate"):
            sent = answer(km("ingest", str(file), "--json", KM_TOKEN=token))
            assert sent[expected] == 1200
            assert sent["not_taken"] == []
        wait_for(km, account, 1200)

    def test_what_was_not_taken_is_named_by_line(self, km: Km, account: str, token: str):
        lines = [event(account, 1), "", event(account, 2, subject="nobody"), event(account, 1, type="other")]
        sent = km("ingest", "-", stdin="\n".join(lines), KM_TOKEN=token)
        assert sent.exit_code == 1
        header, *rows = [line.split("\t") for line in sent.stdout.splitlines()]
        assert header == ["line", "id", "result", "code", "message"]
        assert [row[:4] for row in rows] == [
            ["3", f"{account}-2", "rejected", "unknown_subject"],
            ["4", f"{account}-1", "conflict", "conflict"],
        ]
        assert "1 accepted, 0 duplicate, 1 conflict, 1 rejected" in sent.stderr

    def test_what_cannot_be_sent_is_one_line(self, km: Km, account: str, token: str, tmp_path: Path):
        for stdin, arguments, env, words in (
            ("{", ("-",), {}, "line 1 is not JSON"),
            ("", (str(tmp_path / "none"),), {}, "No such file"),
            ("{}", ("-",), {"KM_TOKEN": "kmt_" + "x" * 43}, "unauthenticated"),
        ):
            failed = km("ingest", *arguments, stdin=stdin, **{"KM_TOKEN": token, **env})
            assert failed.exit_code == 1
            assert words in failed.stderr
        reader = answer(km("tokens", "create", "reader", "--role", "read_only", "--json"))["text"]
        assert "role_not_allowed" in km("ingest", "-", stdin="{}", KM_TOKEN=reader).stderr


class TestClient:
    def test_loses_and_doubles_nothing_while_the_server_is_killed(
        self, km: Km, account: str, token: str, server: ServerProcess, tmp_path: Path
    ):
        options = Options(
            directory=tmp_path / "buffer", max_events=25, max_age_seconds=0.02, longest_pause_seconds=0.5
        )
        client = Client(server.url, token, source="/client", options=options)

        def report() -> None:
            for _ in range(REPORTED):
                client.report("sold", subject=account, units={"transactions": 1})
                time.sleep(0.002)

        reporting = threading.Thread(target=report)
        reporting.start()
        deadline = time.monotonic() + STARTS_WITHIN_SECONDS
        while client._sender.settled < REPORTED - 500:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.stdout.close()
        server.process.wait()
        server.start()
        server.wait_until_ready()
        reporting.join()
        client.flush(STARTS_WITHIN_SECONDS)
        assert client.close() == 0
        assert not (tmp_path / "buffer" / "rejected.jsonl").exists()
        wait_for(km, account, REPORTED)
