"""Ids: a prefix that names the thing, and 26 characters that sort by the time of creation."""

import secrets
import time
from datetime import datetime

from control_plane.foundation.clock import to_ms

CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
ID_LENGTH = 26
RANDOM_BITS = 80


def new_id(prefix: str, now: datetime | None = None) -> str:
    """Return `prefix_` and 26 lower-case Crockford base32 characters: 48 bits of ms, 80 random bits.

    Sorts by creation to the millisecond. Without `now` the system clock is read.
    """
    at_ms = time.time_ns() // 1_000_000 if now is None else to_ms(now)
    value = (at_ms << RANDOM_BITS) | secrets.randbits(RANDOM_BITS)
    characters = []
    for _ in range(ID_LENGTH):
        value, digit = divmod(value, 32)
        characters.append(CROCKFORD[digit])
    return f"{prefix}_{''.join(reversed(characters))}"
