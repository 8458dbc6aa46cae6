"""The file of a case for the customer: a zip of `case.json` and `requests.csv`. Pure.

Internal notes, the names of staff and which gateway saw a call stay here.
"""

import csv
import io
import json
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from control_plane.usage.requests.disputes.queries import DisputedHour
from control_plane.usage.requests.disputes.tables import Dispute, DisputedRequest, DisputeStep

COLUMNS = (
    "event_id", "request_id", "occurred_at", "key_id", "mode", "product", "endpoint", "method", "path", "status",
    "outcome", "units", "dimensions", "bytes_in", "bytes_out", "latency_ms", "client_ip", "flags",
    "source", "event_type", "properties",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@")
# a zip's times have no zone and begin in 1980; the same case gives the same bytes
_TIME = (1980, 1, 1, 0, 0, 0)


def case_file(
    dispute: Dispute,
    *,
    steps: Sequence[DisputeStep],
    requests: Sequence[DisputedRequest],
    hours: Sequence[DisputedHour],
) -> bytes:
    """Return the zip; the same case gives the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (
            ("case.json", json.dumps(_case(dispute, steps, hours), indent=2, ensure_ascii=False) + "\n"),
            ("requests.csv", _csv(requests)),
        ):
            archive.writestr(zipfile.ZipInfo(name, _TIME), content.encode(), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def safe_cell(value: Any) -> Any:
    """Return a value as a spreadsheet may have it: one line, never taken for a formula."""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str):
        return value
    plain = "".join(max(character, " ") for character in value)
    return f"'{plain}" if plain.lstrip(" ").startswith(_FORMULA) else plain


def _case(dispute: Dispute, steps: Sequence[DisputeStep], hours: Sequence[DisputedHour]) -> dict[str, Any]:
    return {
        "dispute": dispute.id,
        "account": dispute.account_id,
        "subject": dispute.subject,
        "reason": dispute.reason,
        "period": dispute.period_text,
        "amount": dispute.amount_text,
        "status": dispute.status,
        "decision": dispute.decision,
        "explanation": dispute.explanation,
        "opened_at": _time(dispute.opened_at),
        "decided_at": _time(dispute.decided_at),
        "requests": dispute.request_count,
        "hours": [
            {
                "hour": _time(hour.hour),
                "requests": hour.requests,
                "revision": hour.revision,
                "sealed_at": _time(hour.sealed_at),
                "root": hour.root,
            }
            for hour in hours
        ],
        "trail": [
            {"number": step.number, "at": _time(step.at), "step": step.step, "text": step.text}
            for step in steps
            if not step.internal
        ],
    }


def _csv(requests: Sequence[DisputedRequest]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for request in requests:
        row = {**request.event, "occurred_at": _time(request.occurred_at)}
        writer.writerow([safe_cell(row.get(name, "")) for name in COLUMNS])
    return out.getvalue()


def _time(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
