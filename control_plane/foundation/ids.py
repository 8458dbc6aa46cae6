"""Ids: a prefix that names the thing, and 26 characters that sort by the time of creation."""

import secrets
import threading
import time
from datetime import datetime

from control_plane.foundation.clock import to_ms

CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
ID_LENGTH = 26
RANDOM_BITS = 80
STEP_BITS = 32

_PAIRS = [first + second for first in CROCKFORD for second in CROCKFORD]
_SHIFTS = range(5 * ID_LENGTH - 10, -1, -10)
_lock = threading.Lock()
_last = 0


def new_id(prefix: str, now: datetime | None = None) -> str:
    """Return `prefix_` and 26 lower-case Crockford base32 characters: 48 bits of ms, 80 random bits.

    Sorts by creation: across processes to the millisecond, within one also when made one after the other in the
    same millisecond. Without `now` the system clock is read.
    """
    at_ms = time.time_ns() // 1_000_000 if now is None else to_ms(now)
    value = _next_value(at_ms)
    pairs = [_PAIRS[value >> shift & 1023] for shift in _SHIFTS]
    return f"{prefix}_{''.join(pairs)}"


def _next_value(at_ms: int) -> int:
    global _last  # noqa: PLW0603 - the order within a millisecond needs the last one
    with _lock:
        if _last >> RANDOM_BITS == at_ms:
            _last += 1 + secrets.randbits(STEP_BITS)
        else:
            # half the range is left free to count upwards in
            _last = (at_ms << RANDOM_BITS) | secrets.randbits(RANDOM_BITS - 1)
        return _last
