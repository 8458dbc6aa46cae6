"""A Kafka-compatible broker (tansu) as a child process."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from devstack.children import Child, ChildFailedError, start_child
from devstack.ports import free_port, is_listening
from devstack.stores.binaries import kafka_broker


class EmbeddedKafka:
    """A broker of our own on 127.0.0.1. It keeps everything in memory: topics, groups and offsets go with it.

    It makes a topic (of four partitions) when somebody asks for one. It gives no ids to idempotent producers.
    A consumer group begins half a session timeout after its first member came; one whose members have left begins
    again some time after their session timeout is over.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        advertised_port: int | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """Take a port where clients are sent, if something stands before the broker.

        `options` are more of the broker's own, such as `("--authentication",)`.
        """
        self.data_dir = data_dir.absolute()
        self.port = port or free_port()
        self._advertised_port = advertised_port or self.port
        self._options = tuple(options)
        self._child: Child | None = None

    @property
    def address(self) -> str:
        """What clients take as a bootstrap server."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when the broker listens."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        argv = [str(kafka_broker()), "--listener-url", f"tcp://{self.address}"]
        argv += ["--advertised-listener-url", f"tcp://127.0.0.1:{self._advertised_port}"]
        argv += ["--storage-engine", "memory://km/", *self._options]
        self._child = start_child(
            argv,
            env={"PATH": os.defpath, "TZ": "UTC"},
            cwd=self.data_dir,
            log_path=self.data_dir / "kafka.log",
        )
        self._child.wait_until(lambda: is_listening(self.port))

    def stop(self) -> None:
        """Harmless when not running."""
        if self._child is not None:
            self._child.stop(number=signal.SIGTERM)
            self._child = None

    def has_ended(self) -> bool:
        """It was started and has ended, whoever did it."""
        return self._child is not None and self._child.exit_code() is not None

    def kill(self) -> None:
        """SIGKILL: everything in it is lost."""
        self._running().kill()
        self._child = None

    def pause(self) -> None:
        """Stop it from answering without closing anything (SIGSTOP): a hung broker."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Empty, on the same port, whether it runs, was stopped or was killed."""
        self.stop()
        self.start()

    def _running(self) -> Child:
        if self._child is None:
            raise ChildFailedError("Kafka is not running")
        return self._child
