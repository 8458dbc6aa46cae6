"""Lines of invoices and previews with their sums: below each other for people, tab-separated into a pipe."""

import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.output import print_rows, short_moment

Explain = Annotated[bool, typer.Option("--explain", help="Say of each line in words how its amount came about.")]
PERIOD_COLUMNS = ("period.start", "period.end")
Sums = Sequence[tuple[str, str, str]]  # label, how it came about, amount


def print_lines(lines: Sequence[dict[str, Any]], sums: Sums, *, explain: bool, of_periods: bool = True) -> None:
    """Print lines as the API tells of them, a line's `position` where it has one.

    `of_periods`: they are of different billing periods, so each says of which.
    """
    if sys.stdout.isatty():
        _print_blocks(lines, sums, explain=explain, of_periods=of_periods)
        return
    how = "explanation" if explain else "formula"
    columns = (*(["#"] if any("position" in line for line in lines) else []), "description", how, "amount")
    rows = [
        {**line, "#": line.get("position"), "explanation": " ".join(line["explanation"]), "amount": _amount(line)}
        for line in lines
    ]
    rows += [{"#": "", "description": label, how: formula, "amount": amount} for label, formula, amount in sums]
    print_rows(rows, (*columns, *(PERIOD_COLUMNS if of_periods else ())))


def _print_blocks(lines: Sequence[dict[str, Any]], sums: Sums, *, explain: bool, of_periods: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("description")
    table.add_column("amount", justify="right", no_wrap=True)
    for number, line in enumerate(lines, start=1):
        table.add_row(str(line.get("position", number)), line["description"], _amount(line))
        for text in _told(line, explain=explain, of_period=of_periods):
            table.add_row("", Text(text, style="dim"), "")
    for label, formula, amount in sums:
        table.add_row("", f"{label} ({formula})" if formula else label, amount)
    Console(highlight=False, markup=False).print(table)


def _told(line: dict[str, Any], *, explain: bool, of_period: bool) -> Iterable[str]:
    """Yield what stands below a line."""
    is_itself = line["formula"] == _amount(line)  # that $49.00 is $49.00 says nothing
    if explain:
        yield from line["explanation"][1 if is_itself else 0 :]
    elif line["formula"] and not is_itself:
        yield line["formula"]
    if of_period:
        yield " to ".join(short_moment(line["period"][end]) for end in ("start", "end"))


def _amount(line: dict[str, Any]) -> str:
    return str(line["amount"]["text"])
