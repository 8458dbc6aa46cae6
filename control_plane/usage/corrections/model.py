"""Values of corrections, without I/O."""

from collections.abc import Mapping
from dataclasses import dataclass

AMENDED = "amended"
"""What stands as the outcome of rows that hold amendments: they are no calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Amendment:
    """Amounts that are added to what is billable of an hour; below zero they are taken away.

    `meters` are units by meter (`requests`: quota units). Those that are `declared` in the catalog are counted
    beside the hour's rows, not in them.
    """

    id: str
    phase_id: str
    product: str
    key_id: str
    endpoint: str
    calls: int
    meters: Mapping[str, int]
    declared: frozenset[str] = frozenset()
