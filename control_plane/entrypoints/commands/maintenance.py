"""`km rebuild`."""

from control_plane.entrypoints.commands.client import post
from control_plane.entrypoints.commands.output import AsJson, print_fields


def rebuild(*, as_json: AsJson = False) -> None:
    """Make everything in Redis anew from the database. Safe at any time; unknown keys get 503 until it is done."""
    report = post("/rebuild", timeout_seconds=3600)
    if not as_json:
        report["seconds"] = round(report["seconds"], 2)
    print_fields(report, ("keys", "accounts", "counters", "written", "seconds"), as_json=as_json)
