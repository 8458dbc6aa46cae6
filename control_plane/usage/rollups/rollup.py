"""From an hour's figures to its rollup rows: which subscription phase, and what is billed. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from control_plane.foundation.clock import EPOCH, MILLISECOND
from control_plane.usage.model import HourKey
from control_plane.usage.store.events import HourFigures
from gateway_contract.counters import HOUR_MS
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.usage_events import is_billable

NO_PHASE = ""
DEFAULT_STATUSES = range(500)


@dataclass(frozen=True, slots=True)
class PhaseTerms:
    """A phase as rollups need it: [start_ms, end_ms), and the statuses its plan version bills."""

    phase_id: str
    start_ms: int
    end_ms: int | None
    billable_statuses: range = DEFAULT_STATUSES

    def __contains__(self, at_ms: int) -> bool:
        return self.start_ms <= at_ms and (self.end_ms is None or at_ms < self.end_ms)


@dataclass(frozen=True, slots=True)
class RowKey:
    """What tells the rows of one hour apart. The outcome of an amendment's row is `amended`."""

    phase_id: str
    product: str
    mode: Mode
    key_id: str
    endpoint: str
    status: int
    outcome: Outcome | str
    replayed: bool = False
    amendment_id: str = ""


@dataclass(slots=True)
class RowSums:
    """The figures of one row. A row is billed whole or not at all: everything that decides is in its key.

    Of events that applications report only the dimensions are billed: they are no calls.
    """

    billable: bool
    billable_dimensions: bool = False
    calls: int = 0
    units: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    latency_ms_sum: int = 0
    gateway_ms_sum: int = 0
    upstream_ms_sum: int = 0
    dimensions: Counter[str] = field(default_factory=Counter)

    def add(self, figures: HourFigures) -> None:
        self.calls += figures.calls
        self.units += figures.units
        self.bytes_in += figures.bytes_in
        self.bytes_out += figures.bytes_out
        self.latency_ms_sum += figures.latency_ms
        self.gateway_ms_sum += figures.gateway_ms
        self.upstream_ms_sum += figures.upstream_ms
        self.dimensions.update(figures.dimensions)


Phases = Mapping[tuple[str, str], Sequence[PhaseTerms]]
"""Phases by (account, product code)."""


def first_ms(moment: datetime) -> int:
    """Return the first whole millisecond at or after a moment: what belongs to a phase begins there."""
    return -((EPOCH - moment) // MILLISECOND)


def hour_span(key: HourKey) -> tuple[datetime, datetime]:
    """Return [start, end) of an hour."""
    start = EPOCH + timedelta(milliseconds=key.hour_ms)
    return start, start + timedelta(milliseconds=HOUR_MS)


def split_moments(hours: Iterable[HourKey], phases: Phases) -> dict[str, list[int]]:
    """Return, by account, the moments (ms, sorted) at which a phase begins or ends inside one of the hours."""
    by_account: dict[str, set[int]] = defaultdict(set)
    for (account_id, _), terms in phases.items():
        for phase in terms:
            by_account[account_id].add(phase.start_ms)
            if phase.end_ms is not None:
                by_account[account_id].add(phase.end_ms)
    found: dict[str, set[int]] = defaultdict(set)
    for account_id, hour_ms in hours:
        inside = {at for at in by_account.get(account_id, ()) if hour_ms < at < hour_ms + HOUR_MS}
        if inside:
            found[account_id] |= inside
    return {account_id: sorted(moments) for account_id, moments in found.items()}


def rollup_rows(
    figures: Iterable[HourFigures], *, phases: Phases, moments: Mapping[str, Sequence[int]]
) -> dict[HourKey, dict[RowKey, RowSums]]:
    """Return the rows of each hour. `moments` are those the figures were cut at (see `split_moments`).

    Figures that are `replayed` are not billed and stand in rows of their own, if they were billed otherwise.
    """
    hours: dict[HourKey, dict[RowKey, RowSums]] = defaultdict(dict)
    for part in figures:
        phase = phase_of(part, phases, moments)
        statuses = phase.billable_statuses if phase else DEFAULT_STATUSES
        replayed = part.replayed and would_be_billed(part, statuses)
        key = RowKey(
            phase_id=phase.phase_id if phase else NO_PHASE,
            product=part.product,
            mode=part.mode,
            key_id=part.key_id,
            endpoint=part.endpoint,
            status=part.status,
            outcome=part.outcome,
            replayed=replayed,
        )
        rows = hours[HourKey(part.account_id, part.hour_ms)]
        if key not in rows:
            billable = not replayed and part.mode is Mode.LIVE and would_be_billed(part, statuses)
            reported = part.outcome is Outcome.REPORTED and part.mode is Mode.LIVE and part.account_id != ""
            rows[key] = RowSums(billable, billable_dimensions=billable or reported)
        rows[key].add(part)
    return {hour: {key: sums for key, sums in rows.items() if sums.calls} for hour, rows in hours.items()}


def would_be_billed(part: HourFigures, statuses: range) -> bool:
    """Say whether calls would be billed if they were live and no replays."""
    return is_billable(
        account_id=part.account_id,
        mode=Mode.LIVE,
        outcome=part.outcome,
        status=part.status,
        statuses=statuses,
    )


def phase_of(part: HourFigures, phases: Phases, moments: Mapping[str, Sequence[int]]) -> PhaseTerms | None:
    """Return the phase that figures belong to; `moments` are those they were cut at."""
    begins_ms = part.hour_ms
    if part.part:
        begins_ms = max(begins_ms, moments[part.account_id][part.part - 1])
    return next((phase for phase in phases.get((part.account_id, part.product), ()) if begins_ms in phase), None)
