"""Live and test traffic: part of every key, counter, event and rollup, never mixed."""

from enum import StrEnum


class Mode(StrEnum):
    """What a key is for. A `test` call works against a sandbox and is never billed."""

    LIVE = "live"
    TEST = "test"
