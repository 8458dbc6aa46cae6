"""Where the secrets go that Stripe tells once."""

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from control_plane.entrypoints.cli import create_cli
from control_plane.entrypoints.commands import stripe_setup

SECRETS = {"webhook endpoint": "whsec_snapshot1234", "thin event destination": "whsec_thin12345678"}
FILE = "KM_STRIPE_WEBHOOK_SECRET=whsec_snapshot1234\nKM_STRIPE_THIN_SECRET=whsec_thin12345678\n"
Set = Callable[..., Result]


def things(secrets: dict[str, str], *, action: str = "made") -> dict[str, Any]:
    return {
        "things": [
            {
                "thing": thing,
                "stripe_id": "we_1",
                "action": action,
                "url": "",
                "because": [],
                "secret": secrets.get(thing),
            }
            for thing in SECRETS
        ]
    }


@pytest.fixture
def asked() -> list[Any]:
    """What the server was asked for."""
    return []


@pytest.fixture
def set_up(monkeypatch: pytest.MonkeyPatch, asked: list[Any]) -> Set:
    def run(*arguments: str, answer: dict[str, Any] | None = None) -> Result:
        def post(path: str, body: Any) -> dict[str, Any]:
            asked.append((path, body))
            if answer is None:
                raise ConnectionError
            return answer

        monkeypatch.setattr(stripe_setup, "post", post)
        return CliRunner().invoke(create_cli(), ["stripe", "setup", "--url", "https://km.test", *arguments])

    return run


class TestSecrets:
    def test_are_printed_as_the_variables_that_they_belong_in(self, set_up: Set) -> None:
        result = set_up(answer=things(SECRETS))
        assert result.exit_code == 0
        assert result.output.endswith(FILE)

    def test_go_to_a_file_that_only_we_can_read_and_nowhere_else(self, set_up: Set, tmp_path: Path) -> None:
        path = tmp_path / "secrets"
        result = set_up("--secrets-file", str(path), answer=things(SECRETS))
        assert result.exit_code == 0
        assert path.read_text() == FILE
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "whsec_" not in result.output

    def test_go_to_the_file_only_where_json_is_asked_for(self, set_up: Set, tmp_path: Path) -> None:
        path = tmp_path / "secrets"
        result = set_up("--secrets-file", str(path), "--json", answer=things(SECRETS))
        assert path.read_text() == FILE
        assert "whsec_" not in result.output

    def test_a_file_that_is_there_is_kept_and_nobody_asks_stripe(
        self, set_up: Set, tmp_path: Path, asked: list[Any]
    ) -> None:
        path = tmp_path / "secrets"
        path.write_text("mine")
        result = set_up("--secrets-file", str(path), answer=things(SECRETS))
        assert result.exit_code != 0
        assert (path.read_text(), asked) == ("mine", [])

    def test_no_file_is_left_where_there_is_no_secret(self, set_up: Set, tmp_path: Path) -> None:
        path = tmp_path / "secrets"
        assert set_up("--secrets-file", str(path), answer=things({}, action="as it was")).exit_code == 0
        assert not path.exists()
        set_up("--secrets-file", str(path), answer=None)
        assert not path.exists()

    def test_are_told_even_where_something_else_failed(self, set_up: Set) -> None:
        answer = things(SECRETS)
        answer["things"].append({**answer["things"][0], "thing": "portal configuration", "action": "failed"})
        answer["things"][-1]["secret"] = None
        result = set_up(answer=answer)
        assert result.exit_code == 1
        assert "whsec_snapshot1234" in result.output
