"""`km keys import`: takes over the keys of Kong's key-auth. They are hashed here; no key leaves this machine."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.client import fail, post
from control_plane.entrypoints.commands.kong_credentials import (
    STRONG_LENGTH,
    Credentials,
    KongFileError,
    ReadAccount,
    ReadKey,
    load_kong_file,
    read_credentials,
)
from control_plane.entrypoints.commands.kong_limits import ALWAYS, suggest_plans
from control_plane.entrypoints.commands.output import AsJson, print_json, print_rows
from control_plane.foundation.clock import utc_now

ACCOUNTS_AT_ONCE = 500
KEYS_AT_ONCE = 1000
MAX_KEYS = 5000  # of one account: the server's own bound
TIMEOUT_SECONDS = 300.0
SHOWN = 50
COLUMNS = ("external_id", "account_id", "outcome", "plan", "keys_created", "keys_existing", "reason")


def import_keys(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Kong's declarative file, a decK export, or lists of its Admin API (key-auths, consumers).",
        ),
    ],
    *,
    api_product: Annotated[str, typer.Option(help="Code of the API product that the keys may call.")],
    plan: Annotated[str, typer.Option(help="Plan for accounts that have no subscription to it yet.")],
    mode: Annotated[str, typer.Option(help="live or test; keys of our own form keep theirs.")] = "live",
    allow_unlisted: Annotated[
        bool, typer.Option("--allow-unlisted", help="Permit hidden plans and plans by quote.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take over accounts and keys from Kong's key-auth: keys are hashed here, and only hashes are sent.

    Repeating it changes nothing. Exits with 1 where an account was refused.
    """
    try:
        documents = [load_kong_file(file) for file in files]
    except KongFileError as error:
        fail(str(error))
    found = read_credentials(documents, mode=mode, now=utc_now())
    if not found.accounts:
        fail("there are no key-auth credentials in it")
    options = {"api_product": api_product, "plan": plan, "allow_unlisted": allow_unlisted, "dry_run": dry_run}
    results = _refused_here(found) + _send(found, options)
    if as_json:
        print_json({"dry_run": dry_run, "accounts": results})
    else:
        _print_report(results)
    _tell(found, api_product=api_product, dry_run=dry_run)
    _print_suggestions(documents)
    if any(result["outcome"] == "refused" for result in results):
        raise typer.Exit(1)


def _refused_here(found: Credentials) -> list[dict[str, Any]]:
    for account in found.accounts:
        if len(account.keys) > MAX_KEYS:
            account.refused = account.refused or f"has more than {MAX_KEYS:,} keys"
    return [
        {"external_id": account.external_id, "outcome": "refused", "reason": account.refused}
        for account in found.accounts
        if account.refused
    ]


def _send(found: Credentials, options: dict[str, Any]) -> list[dict[str, Any]]:
    from rich.console import Console
    from rich.progress import Progress

    wanted = [account for account in found.accounts if not account.refused]
    console = Console(stderr=True)
    results: list[dict[str, Any]] = []
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("importing", total=len(wanted))
        try:
            for batch in _batches(wanted):
                body = {**options, "accounts": [_account(account) for account in batch]}
                results += post("/keys/import", body, timeout_seconds=TIMEOUT_SECONDS)["accounts"]
                progress.update(task, completed=len(results))
        except typer.Exit:
            progress.stop()
            done = f"{len(results):,} of {len(wanted):,} accounts were done"
            typer.echo(f"km: {done}; run it again: what is there stays as it is", err=True)
            raise
    return results


def _batches(accounts: Iterable[ReadAccount]) -> Iterator[list[ReadAccount]]:
    """Yield accounts whole, a thousand keys at a time; one that has more goes alone."""
    batch: list[ReadAccount] = []
    keys = 0
    for account in accounts:
        if batch and (len(batch) == ACCOUNTS_AT_ONCE or keys + len(account.keys) > KEYS_AT_ONCE):
            yield batch
            batch, keys = [], 0
        batch.append(account)
        keys += len(account.keys)
    if batch:
        yield batch


def _account(account: ReadAccount) -> dict[str, Any]:
    return {
        "external_id": account.external_id,
        "name": account.name,
        "keys": [_key(key) for key in account.keys],
    }


def _key(key: ReadKey) -> dict[str, Any]:
    return {
        "key_hash": key.key_hash,
        "name": key.name,
        "mode": key.mode,
        "last_characters": key.last_characters,
        "expires_at": None if key.expires_at is None else key.expires_at.isoformat(),
    }


def _print_report(results: Sequence[dict[str, Any]]) -> None:
    """Print every account, of many only those that were refused; then the sums."""
    shown = results if len(results) <= SHOWN else [row for row in results if row["outcome"] == "refused"]
    if shown:
        print_rows(shown, COLUMNS)
    counts = {
        outcome: sum(row["outcome"] == outcome for row in results)
        for outcome in ("created", "existing", "refused")
    }
    keys = {name: sum(row.get(name, 0) for row in results) for name in ("keys_created", "keys_existing")}
    typer.echo(
        f"accounts: {counts['created']:,} created, {counts['existing']:,} existing, "
        f"{counts['refused']:,} refused; "
        f"keys: {keys['keys_created']:,} created, {keys['keys_existing']:,} existing",
        err=True,
    )


def _tell(found: Credentials, *, api_product: str, dry_run: bool) -> None:
    """Say what the operator has to know of these keys."""
    foreign = sum(not key.ours for key in found.keys)
    weak = sum(key.weak for key in found.keys)
    if dry_run:
        typer.echo("nothing was changed: this was a dry run", err=True)
    if foreign:
        typer.echo(
            f"{foreign:,} keys are not of the form km_live_…: set `imported_keys: true` in the config of "
            f"km-monetize (or km-key-auth) on the routes of {api_product}, or they are refused",
            err=True,
        )
    if weak:
        typer.echo(
            f"{weak:,} keys have fewer than {STRONG_LENGTH} characters and can be guessed: rotate them "
            "(`km keys rotate`)",
            err=True,
        )
    if found.consumers_without_keys:
        typer.echo(f"{found.consumers_without_keys:,} consumers without keys were left out", err=True)
    if found.unnamed:
        typer.echo(
            f"{found.unnamed:,} consumers are known by Kong's id only: give the list of consumers, too",
            err=True,
        )


def _print_suggestions(documents: Sequence[dict[str, Any]]) -> None:
    suggestions = suggest_plans(documents)
    if suggestions:
        typer.echo("\nfor plans.yml, from the rate-limiting plugins in the file:", err=True)
        for words in ALWAYS:
            typer.echo(f"# {words}", err=True)
        for suggestion in suggestions:
            typer.echo(f"\n{suggestion.text}", err=True)
