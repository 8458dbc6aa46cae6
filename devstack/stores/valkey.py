"""Valkey as a child process."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from devstack.children import Child, ChildFailedError, start_child
from devstack.ports import free_port
from devstack.stores.binaries import valkey_server


class EmbeddedValkey:
    """A Valkey server of our own on 127.0.0.1.

    It keeps nothing on disk unless `appendonly`: a kill loses everything in it, as losing a Redis node does.
    """

    def __init__(
        self, data_dir: Path, *, port: int | None = None, appendonly: bool = False, options: Sequence[str] = ()
    ) -> None:
        """`options` are more of the server's own, such as `("--maxmemory", "10mb")`."""
        self.data_dir = data_dir.absolute()
        self.port = port or free_port()
        self._options = ("--appendonly", "yes" if appendonly else "no", *options)
        self._child: Child | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self) -> None:
        """Returns when the server answers."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        argv = [str(valkey_server()), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.data_dir)]
        argv += ["--save", "", "--daemonize", "no", "--repl-diskless-sync-delay", "0", *self._options]
        self._child = start_child(
            argv,
            env={"PATH": os.defpath, "TZ": "UTC"},
            cwd=self.data_dir,
            log_path=self.data_dir / "valkey.log",
        )
        self._child.wait_until(self._answers)

    def stop(self) -> None:
        """Harmless when not running."""
        if self._child is not None:
            self._child.stop(number=signal.SIGTERM)
            self._child = None

    def has_ended(self) -> bool:
        """It was started and has ended, whoever did it."""
        return self._child is not None and self._child.exit_code() is not None

    def kill(self) -> None:
        """SIGKILL."""
        self._running().kill()
        self._child = None

    def pause(self) -> None:
        """Stop it from answering without closing anything (SIGSTOP): a hung server."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """On the same port, whether it runs, was stopped or was killed."""
        self.stop()
        self.start()

    def _running(self) -> Child:
        if self._child is None:
            raise ChildFailedError("Valkey is not running")
        return self._child

    def _answers(self) -> bool:
        client = redis.Redis.from_url(self.url, retry=Retry(NoBackoff(), 0), socket_timeout=5)
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False
        finally:
            client.close()
