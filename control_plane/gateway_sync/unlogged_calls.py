"""Calls that the gateway has admitted and that usage does not know yet, of plans that a change has ended.

They cost what the plan before asks, and nobody knows yet how much: a spend cap counts each as the most that a call
can report, until it is known or its hour is settled.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.spend_caps import EndedPhase, Unlogged
from control_plane.foundation.clock import from_ms, to_ms
from control_plane.foundation.redis import RedisClient
from control_plane.gateway_sync.usage_reads import HOUR, hour_usage
from gateway_contract.counters import HOUR_MS, hour_calls, hour_revision, hour_units
from gateway_contract.modes import Mode
from gateway_contract.redis_names import period_counters

Hours = Mapping[datetime, Unlogged]


class UnloggedCalls:
    """Reads the gateway's counters beside usage."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def __call__(self, session: AsyncSession, phases: Collection[EndedPhase]) -> dict[EndedPhase, Unlogged]:
        """Return what may belong to each phase: all of an hour that it shares with others.

        Redis is read after the session's snapshot was taken: usage never knows of a call that was not counted.
        """
        admitted = await self._admitted(phases)
        hours = [hour for counted in admitted.values() for hour in counted]
        if not hours:
            return {}
        usage = await hour_usage(
            session, {phase.account_id for phase in phases}, start=min(hours), end=max(hours) + HOUR
        )
        known: dict[tuple[str, datetime], Unlogged] = defaultdict(Unlogged)
        for line in usage:
            if line.mode == Mode.LIVE:
                of = line.subscription_id, line.hour
                known[of] = Unlogged(known[of].calls + line.admitted_calls, known[of].units + line.admitted_units)
        return {
            phase: _added_up(
                (counted, known[phase.subscription_id, hour])
                for hour, counted in admitted[_counters(phase)].items()
                if hour < phase.ends_at and hour + HOUR > phase.starts_at
            )
            for phase in phases
        }

    async def _admitted(self, phases: Collection[EndedPhase]) -> dict[str, Hours]:
        """Return, by name of counters, what was admitted in each hour that is not settled."""
        names = sorted({_counters(phase) for phase in phases})
        async with self._client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.hgetall(name)
            found = await pipeline.execute()
        return {name: _open_hours(fields) for name, fields in zip(names, found, strict=True)}


def _counters(phase: EndedPhase) -> str:
    return period_counters(phase.account_id, phase.subscription_id, to_ms(phase.period_start), Mode.LIVE)


def _open_hours(fields: Mapping[str, str]) -> Hours:
    found = {}
    for field, calls in fields.items():
        _, _, number = field.partition(":")
        if not number.isdigit() or field != hour_calls(int(number)) or hour_revision(int(number)) in fields:
            continue
        units = fields.get(hour_units(int(number)), "0")
        found[from_ms(int(number) * HOUR_MS)] = Unlogged(int(calls), int(units))
    return found


def _added_up(hours: Iterable[tuple[Unlogged, Unlogged]]) -> Unlogged:
    calls = units = 0
    for admitted, known in hours:
        calls += max(0, admitted.calls - known.calls)
        units += max(0, admitted.units - known.units)
    return Unlogged(calls, units)
