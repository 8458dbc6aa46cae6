"""The status line while a soak runs, and its report at the end."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from devstack.soak.run import Result
from devstack.soak.schedule import Progress


class StatusLine:
    """Renders anew whenever it is shown: how long, how many calls, which fault."""

    def __init__(self, progress: Progress, *, minutes: float) -> None:
        self._progress = progress
        self._minutes = minutes
        self._started = time.monotonic()

    def __rich__(self) -> RenderableType:
        return Text(str(self))

    def __str__(self) -> str:
        progress, ledger = self._progress, self._progress.ledger
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        calls = ledger.by_status.total()
        return (
            f"{minutes:02}:{seconds:02} of {self._minutes:g} min  {calls:,} calls, {ledger.served:,} served, "
            f"{ledger.broken:,} broken  {len(progress.faults)} faults  {progress.fault or progress.doing}"
        )


def print_report(console: Console, result: Result) -> None:
    """Print faults by kind, answers by status, and every check with what it looked at."""
    console.print()
    console.print(_faults(result))
    console.print()
    console.print(_answers(result))
    console.print()
    console.print(_checks(result))
    for check in result.checks:
        for example in check.examples:
            console.print(f"  [red]{check.name}:[/red] {example}", highlight=False, soft_wrap=True)
    console.print()
    wrong = sum(check.wrong for check in result.checks)
    verdict = "[bold green]Every promise held." if result.ok else f"[bold red]{wrong:,} violations."
    console.print(f"{verdict}[/] Seed {result.seed}, {result.seconds / 60:.1f} minutes.", highlight=False)


def _faults(result: Result) -> Table:
    table = Table(title="Faults", title_justify="left", box=None, header_style="bold", pad_edge=False)
    for name, justify in (("Fault", "left"), ("Times", "right"), ("Seconds", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    times = Counter(fault.name for fault in result.faults)
    for name, count in sorted(times.items()):
        lasted = sum(fault.ended_ms - fault.began_ms for fault in result.faults if fault.name == name) / 1000
        table.add_row(name, str(count), f"{lasted:.1f}")
    return table


def _answers(result: Result) -> Table:
    table = Table(title="What callers saw", title_justify="left", box=None, header_style="bold", pad_edge=False)
    table.add_column("Status")
    table.add_column("Calls", justify="right")
    for status, count in sorted(result.ledger.by_status.items()):
        table.add_row(str(status) if status else "no answer", f"{count:,}")
    return table


def _checks(result: Result) -> Table:
    table = Table(title="Checks", title_justify="left", box=None, header_style="bold", pad_edge=False)
    table.add_column("Must be none")
    table.add_column("Found", justify="right")
    table.add_column("Looked at", overflow="fold")
    for check in result.checks:
        style = "green" if check.ok else "bold red"
        table.add_row(check.name, Text(f"{check.wrong:,}", style=style), check.figures)
    return table


def write_json(path: Path, result: Result) -> None:
    """Write the report as JSON; it holds no key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_as_json(result), indent=2) + "\n")


def _as_json(result: Result) -> dict[str, Any]:
    return {
        "ok": result.ok,
        "seed": result.seed,
        "seconds": round(result.seconds, 1),
        "calls_by_status": {str(status): count for status, count in sorted(result.ledger.by_status.items())},
        "faults": [
            {"name": fault.name, "began_ms": fault.began_ms, "ended_ms": fault.ended_ms} for fault in result.faults
        ],
        "checks": [
            {
                "name": check.name,
                "violations": check.wrong,
                "figures": check.figures,
                "examples": list(check.examples),
            }
            for check in result.checks
        ],
    }
