"""Many rows in one parameter: for `json_to_recordset` in SQL.

Arrays of as many values, one for each column, take Python several times as long to write.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec


def as_json(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as a JSON array; datetimes in ISO form, decimals as strings, so that they stay exact."""
    return msgspec.json.encode(list(rows)).decode()
