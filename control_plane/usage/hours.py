"""Sets of hours in SQL statements."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Text, cast, func, select, tuple_
from sqlalchemy.dialects.postgresql import ARRAY

from control_plane.foundation.clock import from_ms
from control_plane.foundation.db import UtcDateTime
from control_plane.usage.model import HourKey


def hour_arrays(hours: Collection[HourKey]) -> dict[str, list[Any]]:
    """Return hours as two arrays of equal length, `accounts` and `hours`, for `unnest`."""
    return {"accounts": [key.account_id for key in hours], "hours": [from_ms(key.hour_ms) for key in hours]}


def is_one_of(table: Any, hours: Collection[HourKey]) -> Any:
    """Return the condition that a row (with `account_id` and `hour`) is of one of these hours."""
    names = hour_arrays(hours)
    wanted = func.unnest(cast(names["accounts"], ARRAY(Text())), cast(names["hours"], ARRAY(UtcDateTime())))
    derived = wanted.table_valued("account_id", "hour").render_derived()
    return tuple_(table.account_id, table.hour).in_(select(derived.c.account_id, derived.c.hour))
