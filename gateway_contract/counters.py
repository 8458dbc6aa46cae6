"""Fields of a billing period's counter hash, kept by the gateway's limit script.

`calls` is the last call number issued, `units` the quota used; per UTC hour, `c:<hour>` admitted calls and
`u:<hour>` units, `r:<hour>` the revision at which the hour was settled (absent while open). `<hour>` is hours
since 1970 (UTC). Settling an hour overwrites `u:<hour>` with billed units and moves `units` by the difference.

Where a spend cap counts several prices, `x:<dimension>` and per hour `x:<dimension>:<hour>` hold units of that
dimension in the same way: what calls have reserved, and once the hour is settled what was billed.
"""

CALLS = "calls"
UNITS = "units"
HOUR_MS = 3_600_000


def hour_number(at_ms: int) -> int:
    """Return the number of the UTC hour that holds `at_ms` (hours since 1970)."""
    return at_ms // HOUR_MS


def hour_calls(hour: int) -> str:
    return f"c:{hour}"


def hour_units(hour: int) -> str:
    return f"u:{hour}"


def hour_revision(hour: int) -> str:
    return f"r:{hour}"


def dimension_units(dimension: str) -> str:
    return f"x:{dimension}"


def hour_dimension_units(dimension: str, hour: int) -> str:
    return f"x:{dimension}:{hour}"
