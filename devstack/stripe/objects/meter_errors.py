"""Errors found after a meter event was taken: told by thin events only."""

from functools import partial
from typing import TYPE_CHECKING

from devstack.stripe.events import to_rfc3339
from devstack.stripe.state import Object

if TYPE_CHECKING:
    from devstack.stripe.simulator import Simulator

ERROR_REPORT = "v1.billing.meter.error_report_triggered"
NO_METER = "v1.billing.meter.no_meter_found"


def report(sim: "Simulator", meter: Object | None, identifier: str, code: str, message: str) -> None:
    """Say that an event does not count: all that come to light in one second in one report for each meter."""
    pooled: dict[str | None, list[tuple[str, str, str]]] = sim.features.setdefault("meter_errors", {})
    name = meter["id"] if meter else None
    if name not in pooled:
        pooled[name] = []
        sim.after_answer(partial(_send, sim, meter))
    pooled[name].append((code, message, identifier))


def _send(sim: "Simulator", meter: Object | None) -> None:
    found = sim.features["meter_errors"].pop(meter["id"] if meter else None)
    now = to_rfc3339(sim.now())
    data = {
        "developer_message_summary": f"Invalid meter events: {len(found)}",
        "reason": {
            "error_count": len(found),
            "error_types": [_of_one_code(code, found) for code in sorted({one[0] for one in found})],
        },
        "validation_end": now,
        "validation_start": now,
    }
    if meter is None:
        sim.emit_thin(NO_METER, data=data)
    else:
        sim.emit_thin(ERROR_REPORT, related=meter, data=data)


def _of_one_code(code: str, found: list[tuple[str, str, str]]) -> Object:
    same = [one for one in found if one[0] == code]
    samples = [{"error_message": message, "request": {"identifier": name}} for _, message, name in same]
    return {"code": code, "error_count": len(same), "sample_errors": samples}
