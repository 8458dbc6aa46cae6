"""`km ingest`: sends events from a file, for trying out and for taking over what another system has counted."""

import gzip
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from control_plane.entrypoints.commands.client import fail, problem_lines, read_token, target
from control_plane.entrypoints.commands.output import AsJson, print_json, print_rows

if TYPE_CHECKING:
    import httpx

PATH = "/ingest/v1/events"
MEDIA_TYPE = "application/cloudevents-batch+json"
EVENTS_AT_ONCE = 1_000
BYTES_AT_ONCE = 900_000  # the server takes 1 MiB as sent, whatever gzip makes of it
TIMEOUT_SECONDS = 60.0
ATTEMPTS = 8
AGAIN = frozenset({429, 503})
NOT_TAKEN = frozenset({"rejected", "conflict"})
COLUMNS = ("line", "id", "result", "code", "message")


@dataclass(slots=True)
class _Done:
    """What became of the lines so far."""

    counts: Counter[str] = field(default_factory=Counter)
    not_taken: list[dict[str, Any]] = field(default_factory=list)


def ingest(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Events as JSON lines; - reads standard input.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Send CloudEvents, one a line, to the server. Sending a file again counts nothing twice.

    The token needs the role ingest, admin or owner. Exits with 1 where an event was not taken.
    """
    lines = _read_lines(file)
    done = _send_all(lines)
    names = ("accepted", "duplicate", "conflict", "rejected")
    if as_json:
        print_json({**{name: done.counts[name] for name in names}, "not_taken": done.not_taken})
    elif done.not_taken:
        print_rows(done.not_taken, COLUMNS)
    typer.echo(", ".join(f"{done.counts[name]:,} {name}" for name in names), err=True)
    if done.not_taken:
        raise typer.Exit(1)


def _read_lines(file: str) -> list[tuple[int, bytes]]:
    """Return the lines that say something, with their numbers; ends the program where one is no JSON."""
    try:
        text = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        fail(f"{file}: {error.strerror}")
    lines = [(number, line) for number, line in enumerate(text.split(b"\n"), 1) if line.strip()]
    for number, line in lines:
        try:
            json.loads(line)
        except ValueError:
            fail(f"{file}: line {number} is not JSON; nothing was sent")
    return lines


def _send_all(lines: Sequence[tuple[int, bytes]]) -> _Done:
    import httpx
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    done = _Done()
    headers = {
        "Authorization": f"Bearer {read_token()}",
        "Content-Type": MEDIA_TYPE,
        "Content-Encoding": "gzip",
    }
    with (
        httpx.Client(headers=headers, timeout=TIMEOUT_SECONDS) as client,
        Progress(console=console, disable=not console.is_terminal, transient=True) as progress,
    ):
        task = progress.add_task("sending", total=len(lines))
        for batch in _batches(lines):
            try:
                answer = _send(client, batch)
            except typer.Exit:
                progress.stop()
                sent = sum(done.counts.values())
                typer.echo(f"km: {sent:,} of {len(lines):,} events were sent; send the file again", err=True)
                raise
            for (number, _), found in zip(batch, answer["results"], strict=True):
                done.counts[found["result"]] += 1
                if found["result"] in NOT_TAKEN:
                    done.not_taken.append({"line": number, **found})
            progress.advance(task, len(batch))
    return done


def _batches(lines: Iterable[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    batch: list[tuple[int, bytes]] = []
    size = 0
    for line in lines:
        if batch and (len(batch) >= EVENTS_AT_ONCE or size + len(line[1]) > BYTES_AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line[1])
    if batch:
        yield batch


def _send(client: "httpx.Client", batch: Sequence[tuple[int, bytes]]) -> Any:
    """Return the answer to a batch; a server that is busy is asked again, any other error ends the program."""
    import httpx

    body = gzip.compress(b"[" + b",".join(line for _, line in batch) + b"]", compresslevel=5)
    for attempt in range(ATTEMPTS):
        try:
            answer = client.post(f"{target.url}{PATH}", content=body)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError):
            fail(f"--url: {target.url!r} is not an http or https address")
        except httpx.TransportError as error:
            fail(f"cannot reach {target.url}: {error} (is `km serve` running there? --url or KM_URL names it)")
        if answer.status_code not in AGAIN:
            break
        time.sleep(_pause_seconds(answer, attempt))
    if answer.is_error:
        fail(problem_lines(answer))
    return answer.json()


def _pause_seconds(answer: "httpx.Response", attempt: int) -> float:
    asked = answer.headers.get("retry-after", "")
    return float(min(60, max(int(asked) if asked.isdigit() else 1, 2**attempt // 4)))
