"""What amendments add to an hour's rows. Pure.

An hour's billable total of a phase and meter never ends below zero. Amendments are checked for that when they
are made, but what they take from may shrink later (a void, a plan change that reaches back): then what takes away
takes less. What is added counts before what is taken, so the order in which amendments were made decides nothing
but which of them takes less.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from control_plane.catalog.model import BUILT_IN_METERS, REQUESTS_METER
from control_plane.usage.corrections.model import AMENDED, Amendment
from control_plane.usage.rollups.rollup import RowKey
from control_plane.usage.rollups.tables import CALLS_METER
from gateway_contract.modes import Mode

MEASURED_COLUMNS = {"bytes_in": "bytes_in", "bytes_out": "bytes_out", "upstream_ms": "upstream_ms_sum"}
NO_FIGURES: dict[str, int] = {
    "calls": 0,
    "units": 0,
    "billable_calls": 0,
    "billable_units": 0,
    "bytes_in": 0,
    "bytes_out": 0,
    "latency_ms_sum": 0,
    "gateway_ms_sum": 0,
    "upstream_ms_sum": 0,
}
RowValues = Mapping[str, Any]
"""A row's figures by column name."""


@dataclass(frozen=True, slots=True)
class AmendedRows:
    """Rows that hold the amendments of an hour; ids of those that take less than they say."""

    rows: dict[RowKey, dict[str, Any]]
    clamped: frozenset[str]


def amended_rows(rows: Mapping[RowKey, RowValues], amendments: Iterable[Amendment]) -> AmendedRows:
    """Return what is added to the rows of an hour (which are without amendments), oldest first."""
    amendments = tuple(amendments)
    left = billable_totals(rows)
    amounts = {one.id: {CALLS_METER: one.calls, **one.meters} for one in amendments}
    for one in amendments:
        for meter, units in amounts[one.id].items():
            left[one.phase_id, meter] += max(0, units)
    clamped = set()
    for one in amendments:
        for meter, units in amounts[one.id].items():
            # what the catalog declares is counted beside the rows: nobody knows here what there is of it
            if units >= 0 or meter in one.declared:
                continue
            taken = max(units, -left[one.phase_id, meter])
            left[one.phase_id, meter] += taken
            if taken != units:
                amounts[one.id][meter] = taken
                clamped.add(one.id)
    found = {_row_key(one): _values(amounts[one.id]) for one in amendments if any(amounts[one.id].values())}
    return AmendedRows(found, frozenset(clamped))


def billable_totals(rows: Mapping[RowKey, RowValues]) -> Counter[tuple[str, str]]:
    """Return billable units by phase and meter ('' counts calls), amendments among the rows included."""
    totals: Counter[tuple[str, str]] = Counter()
    for key, values in rows.items():
        totals[key.phase_id, CALLS_METER] += values["billable_calls"]
        totals[key.phase_id, REQUESTS_METER] += values["billable_units"]
        if values["billable_calls"] > 0 or key.amendment_id:
            for meter, column in MEASURED_COLUMNS.items():
                totals[key.phase_id, meter] += values[column]
        for dimension, units in values["billable_dimensions"].items():
            # a dimension of a built-in meter's name is not what a price of that name counts
            if dimension not in BUILT_IN_METERS:
                totals[key.phase_id, dimension] += units
    return totals


def _row_key(amendment: Amendment) -> RowKey:
    return RowKey(
        phase_id=amendment.phase_id,
        product=amendment.product,
        mode=Mode.LIVE,
        key_id=amendment.key_id,
        endpoint=amendment.endpoint,
        status=0,
        outcome=AMENDED,
        amendment_id=amendment.id,
    )


def _values(amounts: Mapping[str, int]) -> dict[str, Any]:
    amounts = dict(amounts)
    calls, units = amounts.pop(CALLS_METER, 0), amounts.pop(REQUESTS_METER, 0)
    measured = {column: amounts.pop(meter, 0) for meter, column in MEASURED_COLUMNS.items()}
    dimensions = {meter: units for meter, units in amounts.items() if units}
    return {
        **NO_FIGURES,
        "calls": calls,
        "units": units,
        "billable_calls": calls,
        "billable_units": units,
        **measured,
        "dimensions": dimensions,
        "billable_dimensions": dimensions,
    }
