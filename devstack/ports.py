"""Free loopback ports."""

import random
import socket
import threading

# Below the range the kernel takes for outgoing connections: a port of ours must still be free when its
# process comes back after a kill.
LOWEST, HIGHEST = 15_000, 30_000

_handed_out: set[int] = set()
_lock = threading.Lock()


def free_port() -> int:
    """A TCP port nobody listens on at 127.0.0.1, never given twice by this process."""
    with _lock:
        while True:
            port = random.SystemRandom().randrange(LOWEST, HIGHEST)
            if port not in _handed_out and _is_free(port):
                _handed_out.add(port)
                return port


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
    return port if _is_free(port) else free_port()
