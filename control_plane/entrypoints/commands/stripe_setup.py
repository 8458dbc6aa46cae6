"""`km stripe setup`, `doctor`, `sync` and `drift`."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from control_plane.entrypoints.commands.client import fail, get, post
from control_plane.entrypoints.commands.output import AsJson, print_json, print_rows

VARIABLES: Final = {
    "webhook endpoint": "KM_STRIPE_WEBHOOK_SECRET",
    "thin event destination": "KM_STRIPE_THIN_SECRET",
}
THING_COLUMNS = ("thing", "stripe_id", "action", "url", "because")
STEP_COLUMNS = ("version", "thing", "name", "action", "because")
DONE: Final = {"create": "created", "update": "updated"}
MARKS: Final = {"ok": "ok", "advice": "look", "warning": "warning", "problem": "PROBLEM"}
WIDTH: Final = max(map(len, MARKS.values()))


def setup(
    url: Annotated[
        str, typer.Option("--url", metavar="ADDRESS", help="Where Stripe reaches this server, https://... .")
    ],
    *,
    new_secrets: Annotated[
        bool, typer.Option("--new-secrets", help="Make the webhooks anew, for secrets that were lost.")
    ] = False,
    secrets_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the secrets to a new file only you can read; do not print them."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the webhooks and the customers' portal at Stripe, or find them and put them right; repeatable.

    Their secrets are told once: put them into the environment of the server and start it again.
    """
    with _keeping(secrets_file) as keep:
        answer = post("/stripe/setup", {"url": url, "new_secrets": new_secrets})
        told = {VARIABLES[thing["thing"]]: thing["secret"] for thing in answer["things"] if thing["secret"]}
        keep(told)
    if as_json:
        hidden = [{**thing, "secret": None} for thing in answer["things"]] if secrets_file else answer["things"]
        print_json({"things": hidden})
    else:
        print_rows([{**thing, "because": " ".join(thing["because"])} for thing in answer["things"]], THING_COLUMNS)
        _tell_secrets(told, secrets_file)
    if any(thing["action"] == "failed" for thing in answer["things"]):
        fail("not everything is set up: see above, and set it up again")


@contextmanager
def _keeping(path: Path | None) -> Iterator[Callable[[dict[str, str]], None]]:
    """Hold the file open before Stripe is asked: a secret is told once, and must have somewhere to go.

    What stays empty is removed.
    """
    if path is None:
        yield lambda _told: None
        return
    try:
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w")
    except OSError as error:
        fail(f"cannot make {path}: {error.strerror}")
    with file:
        try:
            yield lambda told: file.writelines(f"{name}={secret}\n" for name, secret in told.items())
        finally:
            file.flush()
            if not path.stat().st_size:
                path.unlink()


def _tell_secrets(told: dict[str, str], file: Path | None) -> None:
    if not told:
        return
    typer.echo("")
    if file is not None:
        typer.echo(f"{' and '.join(told)} written to {file}.")
    else:
        typer.echo("Told once; set these for the server and start it again:")
        for name, secret in told.items():
            typer.echo(f"{name}={secret}")


def doctor(*, as_json: AsJson = False) -> None:
    """Say whether this installation can do at Stripe what it has to; fails if something is a problem."""
    answer = get("/stripe/doctor")
    if as_json:
        print_json(answer)
    else:
        _print_findings(answer["findings"])
    if not answer["healthy"]:
        raise typer.Exit(1)


def _print_findings(findings: Sequence[dict[str, Any]]) -> None:
    about = max(len(finding["about"]) for finding in findings)
    for finding in findings:
        mark = MARKS[finding["standing"]]
        typer.echo(f"{mark.ljust(WIDTH)}  {finding['about'].ljust(about)}  {finding['says']}")


def sync(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Lay all plans that Stripe bills there now, and mend what was changed there; fails if something is left.

    It happens by itself when a plan is published.
    """
    answer = post("/stripe/sync", {"dry_run": dry_run})
    if as_json:
        print_json(answer)
    else:
        _print_plans(answer, nothing="nothing to do")
        if dry_run and not answer["agrees"]:
            typer.echo("nothing was done (--dry-run)")
    if not answer["agrees"] and not dry_run:
        raise typer.Exit(1)


def drift(*, as_json: AsJson = False) -> None:
    """Say what of our plans differs at Stripe, and change nothing; fails if something does."""
    answer = get("/stripe/drift")
    if as_json:
        print_json(answer)
    else:
        _print_plans(answer, nothing="nothing differs")
    if not answer["agrees"]:
        raise typer.Exit(1)


def _print_plans(answer: dict[str, Any], *, nothing: str) -> None:
    versions = answer["versions"]
    lines = [_line(version, step, answer) for version in versions for step in version["steps"] if _does(step)]
    if lines:
        print_rows(lines, STEP_COLUMNS)
    problems = [f"{version['version']}: {problem}" for version in versions for problem in version["problems"]]
    for problem in problems:
        typer.echo(f"PROBLEM  {problem}")
    if not lines and not problems:
        are = "1 plan version is" if len(versions) == 1 else f"{len(versions):,} plan versions are"
        typer.echo(f"{nothing}: {are} at Stripe as wanted")
    for version in versions:
        for ours in version["ours"]:
            what = f"{ours['model']} {ours['meter'] or ''}".strip()
            typer.echo(f"{version['version']}: {what} ({ours['currency']}) is charged by us: {ours['reason']}")


def _does(step: dict[str, Any]) -> bool:
    return bool(step["action"] != "none")


def _line(version: dict[str, Any], step: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    done = version["state"] == "pushed" and not answer["dry_run"]
    action = DONE[step["action"]] if done else step["action"]
    return {**step, "version": version["version"], "action": action, "because": " ".join(step["because"])}
