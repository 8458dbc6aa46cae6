"""Telling that an hour is not complete: an error in the log, a row in the outbox, a metric."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import from_ms
from control_plane.foundation.outbox import Topic, enqueue
from control_plane.usage.completeness import metrics
from control_plane.usage.completeness.evidence import CounterHour
from control_plane.usage.completeness.missing import MissingFound
from control_plane.usage.completeness.model import State
from control_plane.usage.model import HourKey

log = structlog.get_logger(__name__)

DIFFERS = "rollup_differs"
WRONGLY_SETTLED = "wrongly_settled"
MOST_RANGES = 10


@dataclass(frozen=True, slots=True)
class Alert:
    """What is wrong with an hour: a state of one of its counters, `rollup_differs` or `wrongly_settled`."""

    hour: HourKey
    reason: str
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_counter(cls, hour: HourKey, counter: CounterHour, state: State, found: MissingFound) -> Self:
        ranges = [f"{gap.numbers.first}-{gap.numbers.last}" for gap in found.gaps[:MOST_RANGES]]
        nodes = list(dict.fromkeys(node for gap in found.gaps for node in gap.nodes))[:MOST_RANGES]
        details = {
            "subscription_id": counter.subscription_id,
            "mode": counter.mode,
            "missing_calls": found.calls,
            "numbers": ranges,
            "nodes": nodes,
        }
        return cls(hour, state.value, details)

    @classmethod
    def of_difference(cls, hour: HourKey, found: Sequence[dict[str, Any]]) -> Self:
        return cls(hour, DIFFERS, {"differences": list(found)})

    @classmethod
    def of_settlement(cls, hour: HourKey) -> Self:
        return cls(hour, WRONGLY_SETTLED)


async def raise_alerts(session: AsyncSession, alerts: Sequence[Alert], *, now: datetime) -> None:
    """Write an outbox row `usage.incomplete` for each alert, and say it aloud."""
    for alert in alerts:
        hour = from_ms(alert.hour.hour_ms).isoformat()
        payload = {
            "account_id": alert.hour.account_id,
            "hour": hour,
            "reason": alert.reason,
            **alert.details,
        }
        await enqueue(
            session, topic=Topic.USAGE_INCOMPLETE, entity_id=alert.hour.account_id, payload=payload, now=now
        )
        metrics.ALERTS.labels(alert.reason).inc()
        log.error("usage is incomplete", **payload)
