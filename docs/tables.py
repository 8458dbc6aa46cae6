"""Writes the tables of docs/plugins.md from the plugins' own schemas, between their marks (`make docs`)."""  # noqa: INP001 - a folder of pages, not a package

import importlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gateway_contract import plugins

PAGE = Path(__file__).parent / "plugins.md"

Field = Mapping[str, Any]


def table_of(plugin: str) -> str:
    """Return one plugin's table in Markdown, a line for each field of its `Schema`."""
    module = importlib.import_module(f"kong_plugins.plugins.{plugin.replace('-', '_')}")
    lines = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for entry in module.Schema:
        lines += [_line(name, field) for name, field in entry.items()]
    return "\n".join(lines)


def with_tables(page: str) -> str:
    """Return the page with every table between `<!-- begin:NAME -->` and `<!-- end -->` written anew.

    Raises:
        ValueError: a plugin has no pair of marks, or more than one.
    """
    for plugin in plugins.ALL:
        mark = re.compile(rf"(<!-- begin:{plugin} -->\n).*?(<!-- end -->)", re.DOTALL)
        found = len(mark.findall(page))
        if found != 1:
            raise ValueError(f"{plugin}: {found} pairs of marks, 1 is needed")
        table = table_of(plugin)
        page = mark.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", page)
    return page


def main() -> None:
    """Rewrite the page where its tables are out of date."""
    before = PAGE.read_text(encoding="utf-8")
    after = with_tables(before)
    if after != before:
        PAGE.write_text(after, encoding="utf-8")
    sys.stdout.write(f"{PAGE.name}: {'written' if after != before else 'up to date'}\n")


def _line(name: str, field: Field) -> str:
    cells = [f"`{name}`", _type(field), _default(field), field.get("description", "")]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _type(field: Field) -> str:
    kind = str(field["type"])
    if kind in {"array", "set"}:
        return f"{kind} of {_type(field['elements'])}"
    if kind == "map":
        return f"map of {_type(field['keys'])} to {_type(field['values'])}"
    if kind == "record":
        names = [name for entry in field["fields"] for name in entry]
        return f"record of {_codes(names)}"
    if "one_of" in field:
        return "one of " + _codes(field["one_of"])
    if "between" in field:
        low, high = field["between"]
        return f"{kind}, {low} to {high}"
    return kind


def _default(field: Field) -> str:
    if "default" in field:
        value = field["default"]
        if isinstance(value, list):
            return _codes(value) if value else "none"
        return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"
    return "**required**" if field.get("required") else "none"


def _codes(values: Iterable[Any]) -> str:
    return ", ".join(f"`{value}`" for value in values)


if __name__ == "__main__":
    main()
