"""Tables on a terminal: what does not fit into a row stands below it, and nothing is cut."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

GAP = 2
LONG_TEXT = 30  # longer words than these may be folded, to no less than NARROWEST
NARROWEST = 16
NOTHING = ("", "-")
_ID = re.compile(r"[a-z]{2,4}_[0-9a-hjkmnp-tv-z]{26}")


@dataclass(frozen=True, slots=True)
class Column:
    """A column with its texts, one for each row."""

    label: str
    texts: tuple[str, ...]
    is_number: bool
    folds_label: bool = False

    @property
    def widest(self) -> int:
        return max(self.label_width, *map(cell_len, self.texts))

    @property
    def label_width(self) -> int:
        return max(map(cell_len, self.label.split() if self.folds_label else (self.label,)))

    @property
    def may_fold(self) -> bool:
        return any(" " in text and len(text) > LONG_TEXT for text in self.texts)

    @property
    def narrowest(self) -> int:
        return max(NARROWEST, self.label_width) if self.may_fold else self.widest

    @property
    def is_empty(self) -> bool:
        return all(text in NOTHING for text in self.texts)

    @property
    def holds_ids(self) -> bool:
        return any(_ID.fullmatch(text) for text in self.texts)

    @property
    def id_kinds(self) -> set[str]:
        """Return `inv` for invoices and so on: what ids say by themselves."""
        return {text.partition("_")[0] for text in self.texts if _ID.fullmatch(text)}


@dataclass(frozen=True, slots=True)
class Layout:
    """Which columns stand in the rows, how wide they are, and which stand below each row."""

    columns: tuple[Column, ...]
    widths: tuple[int, ...]
    below: tuple[Column, ...]


def lay_out(columns: Sequence[Column], width: int) -> Layout:
    """Return a layout that fits, or the narrowest there is. Pure.

    Where a table is too wide, long texts are folded, then labels, and columns without anything are left out; then
    ids go below the rows, and at last the last columns. A single column that is too wide is left to the terminal.
    """
    kept = list(columns)
    ids: list[Column] = []
    others: list[Column] = []
    if _needed(kept) > width:
        kept = [replace(column, folds_label=True) for column in kept if not column.is_empty] or kept[:1]
    if _needed(kept) > width:
        ids = [column for column in kept if column.holds_ids]
        kept = [column for column in kept if not column.holds_ids] or [ids.pop(0)]
    while _needed(kept) > width and len(kept) > 1:
        others.insert(0, kept.pop())
    return Layout(tuple(kept), tuple(_widths(kept, width)), (*ids, *others))


def print_table(console: Console, columns: Sequence[Column]) -> None:
    """Print a table of one row at least."""
    layout = lay_out(columns, console.width)
    console.width = max(console.width, sum(layout.widths) + GAP * (len(layout.widths) - 1))
    console.print(_head(layout))
    for number in range(len(columns[0].texts)):
        console.print(_row(layout, [Text(column.texts[number]) for column in layout.columns]))
        for line in _below(layout, number, console.width):
            console.print(Text(line, style="dim"), soft_wrap=True)


def _needed(columns: Sequence[Column]) -> int:
    return sum(column.narrowest for column in columns) + GAP * (len(columns) - 1)


def _widths(columns: Sequence[Column], width: int) -> Iterator[int]:
    """Yield widths; what is left is shared by the texts that may be folded, the short ones first."""
    left = width - GAP * (len(columns) - 1) - sum(column.widest for column in columns if not column.may_fold)
    folded = sorted((column for column in columns if column.may_fold), key=lambda column: column.widest)
    given: dict[int, int] = {}
    for place, column in enumerate(folded):
        share = left // (len(folded) - place)
        given[id(column)] = max(column.narrowest, min(column.widest, share))
        left -= given[id(column)]
    for column in columns:
        yield given.get(id(column), column.widest)


def _head(layout: Layout) -> Table:
    table = Table.grid(padding=(0, GAP, 0, 0))
    for column, width in zip(layout.columns, layout.widths, strict=True):
        table.add_column(width=width, justify="right" if column.is_number else "left", vertical="bottom")
    table.add_row(*(Text(column.label, style="bold") for column in layout.columns))
    return table


def _row(layout: Layout, texts: Sequence[Text]) -> Table:
    table = Table.grid(padding=(0, GAP, 0, 0))
    for column, width in zip(layout.columns, layout.widths, strict=True):
        table.add_column(width=width, justify="right" if column.is_number else "left", no_wrap=not column.may_fold)
    table.add_row(*texts)
    return table


def _below(layout: Layout, number: int, width: int) -> Iterator[str]:
    """Yield what stands below a row, indented. An id is named only where another one is of the same kind."""
    kinds = Counter(kind for column in layout.below for kind in column.id_kinds)
    line = ""
    for column in layout.below:
        text = column.texts[number]
        if text in NOTHING:
            continue
        is_told = column.holds_ids and all(kinds[kind] == 1 for kind in column.id_kinds)
        piece = text if is_told else f"{column.label} {text}"
        if line and cell_len(line) + GAP + cell_len(piece) > width:
            yield line
            line = ""
        line += f"{'  '}{piece}"
    if line:
        yield line
