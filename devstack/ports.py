"""Free loopback ports."""

import fcntl
import os
import random
import socket
import tempfile
import threading
from pathlib import Path

# Below the range the kernel takes for outgoing connections: a port of ours must still be free when its
# process comes back after a kill.
LOWEST, HIGHEST = 15_000, 30_000

_handed_out: set[int] = set()
_lock = threading.Lock()
# processes of one user agree here: a byte of this file is locked for each port, by who has given it out, for life
_agreed: dict[int, int] = {}


def free_port() -> int:
    """A TCP port nobody listens on at 127.0.0.1, never given twice, not by another process of this user either."""
    with _lock:
        while True:
            port = random.SystemRandom().randrange(LOWEST, HIGHEST)
            if port not in _handed_out and _is_free(port) and _is_ours(port):
                _handed_out.add(port)
                return port


def _is_ours(port: int) -> bool:
    """Lock the port's byte; a process that forked from the one that opened the file opens it anew."""
    if os.getpid() not in _agreed:
        path = Path(tempfile.gettempdir()) / f"kong-monetize-ports-{os.getuid()}.lock"
        _agreed[os.getpid()] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(_agreed[os.getpid()], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # as servers do, so that a connection in TIME_WAIT does not count as taken
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def is_listening(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def preferred_port(port: int) -> int:
    """That port where nobody has it, else any free one."""
    with _lock:
        is_ours = _is_free(port) and _is_ours(port)
    return port if is_ours else free_port()
