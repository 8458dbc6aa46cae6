"""One data directory, one running stack."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from devstack.children import ChildFailedError

LOCK_FILE = "stack.lock"


@contextlib.contextmanager
def sole_use_of(directory: Path) -> Iterator[None]:
    """Hold the directory. A second stack would rewrite files that the first one's processes read.

    The lock goes with the process that holds it, however that ends.

    Raises:
        ChildFailedError: another stack holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ChildFailedError(f"another stack runs in {directory}; end it, or choose another one") from error
        yield
    finally:
        os.close(descriptor)
