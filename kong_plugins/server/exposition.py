"""Metrics of all workers, added up, as Prometheus text."""

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from kong_plugins.server.methods import PDK_CALLS
from kong_plugins.server.metrics import Labels, Series
from kong_plugins.server.shared_board import WorkerSlot

Totals: TypeAlias = dict[Series, list[float]]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def read_slot(slot: WorkerSlot) -> Totals:
    """Return a worker's series and their values."""
    totals: Totals = {}
    at = 0
    for line in slot.metric_names().splitlines():
        series = Series.from_line(line)
        totals[series] = [slot.values[at + offset] for offset in range(series.cells)]
        at += series.cells
    return totals


def add(into: Totals, more: Mapping[Series, list[float]], *, gauges: bool) -> None:
    """Add values to totals; a dead worker's gauges are left out."""
    for series, values in more.items():
        if series.kind != "gauge" or gauges:
            known = into.get(series)
            into[series] = list(values) if known is None else [a + b for a, b in zip(known, values, strict=True)]


def render(totals: Totals) -> bytes:
    """Return the exposition, in the order of names and labels; PDK methods never called are left out."""
    lines: list[str] = []
    previous = ""
    for series in sorted(totals, key=lambda one: (one.name, one.labels)):
        values = totals[series]
        if series.name == PDK_CALLS and not values[0]:
            continue
        if series.name != previous:
            previous = series.name
            lines.append(f"# HELP {series.name} {series.help_text or series.name}")
            lines.append(f"# TYPE {series.name} {series.kind}")
        lines.extend(_samples(series, values))
    return "\n".join([*lines, ""]).encode()


def _samples(series: Series, values: list[float]) -> Iterable[str]:
    if series.kind != "histogram":
        yield f"{series.name}{_text(series.labels)} {_number(values[0])}"
        return
    count = 0.0
    for bound, value in zip([*map(str, series.buckets), "+Inf"], values[:-1], strict=True):
        count += value
        yield f"{series.name}_bucket{_text((*series.labels, ('le', bound)))} {_number(count)}"
    yield f"{series.name}_sum{_text(series.labels)} {values[-1]!r}"
    yield f"{series.name}_count{_text(series.labels)} {_number(count)}"


def _text(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
