"""The simulator as a child process, for tests and the local stack."""

import secrets
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from devstack.children import Child, ChildFailedError, start_child
from devstack.ports import free_port
from devstack.stripe.control_client import Control
from devstack.supervisor import answers_ok


class EmbeddedStripe:
    """A Stripe of our own on 127.0.0.1; it ends when this process ends, however that happens.

    `webhook_url` and `thin_url` make it send all events, and those of the thin form, from the start; the secrets
    are known before it starts.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        webhook_url: str | None = None,
        thin_url: str | None = None,
        webhook_metadata: dict[str, str] | None = None,
        keep: Path | None = None,
        seed: int = 0,
        log_path: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """`options` are more of the command's own, such as `("--aggregation-seconds", "5")`.

        By `webhook_metadata` somebody can tell whose the webhooks are. `keep` is a file to go on from, in which
        all is kept.
        """
        self.port = port or free_port()
        self.api_key = "sk_test_" + secrets.token_hex(12)
        self.webhook_secret = "whsec_" + secrets.token_hex(16)
        self.thin_secret = "whsec_" + secrets.token_hex(16)
        self.webhook_url = webhook_url
        self.thin_url = thin_url
        self._webhook_metadata = webhook_metadata
        self.control = Control(self.url)
        self._seed = seed
        self._options = (*options, *(("--keep", str(keep)) if keep is not None else ()))
        self._log_path = log_path or Path(tempfile.gettempdir()) / f"km-stripe-simulator-{self.port}.log"
        self._child: Child | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        if self._child is None:
            raise ChildFailedError("the Stripe simulator is not running")
        return self._child.pid

    def start(self) -> None:
        """Returns when it answers. What was in it before is gone, unless it was kept."""
        argv = [sys.executable, "-m", "devstack.stripe", "--port", str(self.port), "--seed", str(self._seed)]
        root = Path(__file__).parents[2]
        self._child = start_child([*argv, *self._options], cwd=root, log_path=self._log_path)
        self._child.wait_until(lambda: answers_ok(f"{self.url}/_sim/health"))
        self.register_webhooks()

    def register_webhooks(self) -> None:
        """Make the webhooks named at the beginning anew, as after `control.reset()`."""
        if self.webhook_url:
            self.control.add_webhook(self.webhook_url, secret=self.webhook_secret, metadata=self._webhook_metadata)
        if self.thin_url:
            self.control.add_thin_webhook(self.thin_url, secret=self.thin_secret, metadata=self._webhook_metadata)

    def stop(self) -> None:
        """Harmless when not running."""
        if self._child is not None:
            self._child.stop(number=signal.SIGTERM)
            self._child = None
            self._log_path.unlink(missing_ok=True)

    def has_ended(self) -> bool:
        """It was started and has ended, whoever did it."""
        return self._child is not None and self._child.exit_code() is not None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
