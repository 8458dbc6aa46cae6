"""What commands print: JSON for machines, tables for people, tab-separated lines into a pipe."""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
# for commands that take an amount: -5 is one, too, and the server says whether it can be used here
TAKES_AMOUNTS = {"ignore_unknown_options": True}
Row = Mapping[str, Any]
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d)(:\d\d)\.\d{3}Z")


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_rows(rows: Iterable[Row], columns: Sequence[str], *, as_json: bool = False, title: str = "") -> None:
    """Print a list. A column is a field's name, or a path like `total.text`."""
    rows = list(rows)
    if as_json:
        print_json(rows)
    elif sys.stdout.isatty():
        _print_table(rows, columns, title)
    else:
        headings = [_label(column) for column in columns]
        for line in [headings, *([cell(row, column) for column in columns] for row in rows)]:
            typer.echo("\t".join(line))


def print_fields(row: Row, fields: Sequence[str], *, as_json: bool = False) -> None:
    """Print one thing, a line for each field."""
    if as_json:
        print_json(row)
        return
    width = max(len(_label(field)) for field in fields)
    for field in fields:
        typer.echo(f"{_label(field).ljust(width)}  {cell(row, field) or '-'}")


def _label(path: str) -> str:
    """Return what a field is called: `total.text` is the total."""
    return path.removesuffix(".text")


def cell(row: Row, path: str) -> str:
    """Return a field as text: `-` for nothing, lists joined, numbers with thousands separators for people."""
    value: Any = row
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if value is None or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and sys.stdout.isatty():
        return f"{value:,}"
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return " ".join(str(value).split())


def short_moment(text: str) -> str:
    """Return a time without milliseconds, nor seconds that are nothing: it can still be given to a command."""
    if found := _MOMENT.fullmatch(text):
        return f"{found[1]}{'' if found[2] == ':00' else found[2]}Z"
    return text


def _print_table(rows: list[Row], columns: Sequence[str], title: str) -> None:
    """Print for people: ids stay whole and times can be given again, so that they can be copied."""
    from rich.console import Console

    from control_plane.entrypoints.commands.table_layout import Column, print_table

    console = Console(highlight=False, markup=False)
    if title:
        console.print(title, style="italic")
    if not rows:
        console.print("nothing")
        return
    told = [
        Column(
            _label(column).replace("_", " "),
            tuple(short_moment(cell(row, column)) for row in rows),
            is_number=_counts(rows, column),
        )
        for column in columns
    ]
    print_table(console, told)


def _counts(rows: list[Row], column: str) -> bool:
    """Whether a column holds amounts of money, or numbers only."""
    is_money = column == "amount" or column.endswith(".text")
    return is_money or (bool(rows) and all(isinstance(row.get(column), int) for row in rows))
