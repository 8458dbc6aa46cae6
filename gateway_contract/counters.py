"""Fields of a billing period's counter hash, kept by the gateway's limit script.

`calls` is the last call number issued, `units` the quota used; per UTC hour, `c:<hour>` admitted calls and
`u:<hour>` units, `r:<hour>` the revision at which the hour was settled (absent while open). `<hour>` is hours
since 1970 (UTC). Settling an hour overwrites `u:<hour>` with billed units and moves `units` by the difference.

Where a spend cap counts several prices, `x:<dimension>` and per hour `x:<dimension>:<hour>` hold units of that
dimension in the same way: what calls have reserved, and once the hour is settled what was billed.

Where the plan changed within the billing period, units of a plan version that began within it are kept apart in
the same way, under the name that `plan_part` gives: what counts against an allowance that began with it.

Where usage knows of calls that the hash does not (made while Redis was away, or forgotten with Redis' data), the
control plane raises `c:<hour>` to what usage knows. `n:<hour>` says by how much: that many of `c:<hour>` were not
counted by the limit script. Call numbers then go on behind all that is known; `skipped` holds the numbers that
were passed over (`51-78 105-110`, ascending): this hash has never issued them.
"""

CALLS = "calls"
UNITS = "units"
SKIPPED = "skipped"
HOUR_MS = 3_600_000


def hour_number(at_ms: int) -> int:
    """Return the number of the UTC hour that holds `at_ms` (hours since 1970)."""
    return at_ms // HOUR_MS


def hour_calls(hour: int) -> str:
    return f"c:{hour}"


def hour_units(hour: int) -> str:
    return f"u:{hour}"


def hour_not_counted(hour: int) -> str:
    return f"n:{hour}"


def hour_revision(hour: int) -> str:
    return f"r:{hour}"


def parse_skipped(text: str | None) -> tuple[tuple[int, int], ...]:
    """Return the (first, last) of numbers that were passed over, ascending.

    Raises:
        ValueError: the text is not of the form `51-78 105-110`.
    """
    pairs = (part.split("-") for part in (text or "").split())
    return tuple((int(first), int(last)) for first, last in pairs)


def plan_part(plan_version_id: str) -> str:
    """Return the name of a plan version's part of a period; its units are kept as those of a dimension are.

    No dimension is named so: their names have no capitals.
    """
    return f"PLAN_{plan_version_id}"


def dimension_units(dimension: str) -> str:
    return f"x:{dimension}"


def hour_dimension_units(dimension: str, hour: int) -> str:
    return f"x:{dimension}:{hour}"
