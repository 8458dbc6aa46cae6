"""How many file descriptors a worker may hold, and how many of them connections may take."""

import contextlib
import resource
from typing import Final

WANTED: Final = 16_384
KEPT_BACK: Final = 64  # for the plugins' own: Redis, spool files, instance files


def raise_limit() -> None:
    """Use more than the usual 1,024 where the system lets this process; children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_connections() -> int:
    """Return how many connections this process may hold without taking what plugins need."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = WANTED if soft == resource.RLIM_INFINITY else min(soft, WANTED)
    return max(limit - KEPT_BACK, limit // 2)
