"""The whole product on one machine: stores, upstream, gateway, shipper, control plane."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Self
from urllib.request import urlopen

import psycopg

from devstack.children import ChildFailedError, descendants
from devstack.data_lock import sole_use_of
from devstack.kong_files import render_base_config, render_gateway_conf
from devstack.ports import is_listening
from devstack.stack_layout import DATABASE, REPOSITORY, Ports, RedisKind, StackLayout, write_private
from devstack.stores.postgres import EmbeddedPostgres
from devstack.stores.valkey import EmbeddedValkey
from devstack.stores.valkey_cluster import EmbeddedValkeyCluster
from devstack.stripe.embedded import EmbeddedStripe
from devstack.supervisor import Command, CommandProcess, Supervisor, answers_ok, wait_until

LONGEST_SOCKET_PATH: Final = 80
COMMAND_SECONDS: Final = 120.0
PLUGIN_SERVER: Final = "pluginserver"
INSTALLATION: Final = "KM_STRIPE_INSTALLATION"
CLUSTER_NODE_TIMEOUT_MS: Final = 2_000


class Stack(StackLayout):
    """Starts and keeps running: postgres, valkey, upstream, gateway (with its pluginserver), shipper, server.

    What a killed process leaves is found again by the next one; everything lies below `data_dir`. All processes
    end with this one, even when it is killed.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        ports: Ports | None = None,
        fast: bool = False,
        kong_config: Path | None = None,
        settings: Mapping[str, str] | None = None,
        plugin_workers: int = 1,
        record_upstream: bool = False,
        redis: RedisKind = "server",
        stripe: bool = False,
        mailbox: bool = False,
    ) -> None:
        """`fast` gives up durability against power loss. `settings` are more `KM_` variables for every process.

        A Redis cluster has three primaries with a replica each; its processes are `valkey-0` to `valkey-5`.
        With `record_upstream` the sample API writes down each request that reaches it, in `upstream_journal`.
        With `stripe` a simulated Stripe runs beside it, `simulated_stripe`, and the server bills through that.
        With `mailbox` mails go to a mailbox, whose page is at `mailbox_url`; without, they are not sent.
        """
        super().__init__(data_dir, ports=ports or Ports(), settings=settings or {})
        self.has_mailbox = mailbox
        self._kong_config = kong_config or REPOSITORY / "kong.yml"
        self.plugin_workers = plugin_workers
        self._record_upstream = record_upstream
        self._supervisor = Supervisor()
        self._leaving = contextlib.ExitStack()
        self._postgres = EmbeddedPostgres(self.data_dir / "postgres", port=self.ports.postgres, fast=fast)
        self._valkey = EmbeddedValkey(self.data_dir / "valkey", port=self.ports.valkey)
        self.redis_cluster: EmbeddedValkeyCluster | None = None
        if redis == "cluster":
            self.redis_cluster = EmbeddedValkeyCluster(
                self.data_dir / "valkey", replicas=1, node_timeout_ms=CLUSTER_NODE_TIMEOUT_MS
            )
        self.simulated_stripe: EmbeddedStripe | None = None
        if stripe:
            webhooks = f"{self.control_url}/webhooks/stripe"
            self.simulated_stripe = EmbeddedStripe(
                port=self.ports.stripe,
                webhook_url=webhooks,
                thin_url=f"{webhooks}/thin",
                webhook_metadata={"km_installation": self._settings.get(INSTALLATION, "main")},
                keep=self.data_dir / "stripe.pickle",
                log_path=self.data_dir / "logs" / "stripe.log",
            )
        self._socket = self.data_dir / "run" / "km.sock"

    def control_environment(self) -> dict[str, str]:
        found = super().control_environment()
        if self.simulated_stripe is None:
            return found
        return found | {
            "KM_STRIPE_KEY": self.simulated_stripe.api_key,
            "KM_STRIPE_API_BASE": self.simulated_stripe.url,
            "KM_STRIPE_WEBHOOK_SECRET": self.simulated_stripe.webhook_secret,
            "KM_STRIPE_THIN_SECRET": self.simulated_stripe.thin_secret,
        }

    @property
    def redis_url(self) -> str:
        return super().redis_url if self.redis_cluster is None else self.redis_cluster.url

    # --- life

    def start(self) -> None:
        """Returns when everything is ready. Raises ChildFailedError; nothing is left running then."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """In order: callers first, stores last. Harmless when not running."""
        self._supervisor.stop()
        self._leaving.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def destroy(self) -> None:
        """Stop, and delete the databases (PostgreSQL's may lie outside `data_dir`)."""
        self.stop()
        self._postgres.destroy()

    # --- for kill tests

    def kill(self, name: str) -> int:
        """SIGKILL to one process, `pluginserver` included; it comes back by itself. Returns the killed pid."""
        if name == PLUGIN_SERVER:
            pid = self.pid(name)
            os.kill(pid, 9)
            return pid
        return self._supervisor[name].kill()

    def hold(self, name: str) -> None:
        """SIGKILL to one process (not `pluginserver`), which stays down until `release`."""
        self._supervisor[name].hold()

    def release(self, name: str) -> None:
        """Have a process that was held started again; `wait_ready` says when it is back."""
        self._supervisor[name].release()

    def plugin_worker_pids(self) -> list[int]:
        """Of all the plugin server's workers, once they run. Raises ChildFailedError where they do not."""
        self.wait_ready(PLUGIN_SERVER)
        found: list[int] = []

        def are_all_there() -> bool:
            found[:] = descendants(self.pid(PLUGIN_SERVER))
            return len(found) == self.plugin_workers

        wait_until(are_all_there, timeout_seconds=30.0, what="the start of all plugin workers")
        return found

    def send_signal(self, name: str, number: int) -> None:
        """Such as SIGSTOP, to pause a process, and SIGCONT."""
        os.kill(self.pid(name), number)

    def wait_ready(self, name: str, *, timeout_seconds: float = 60.0) -> None:
        """Wait until a killed process is back. Raises ChildFailedError."""
        if name == PLUGIN_SERVER:
            wait_until(self._plugin_server_is_ready, timeout_seconds=timeout_seconds, what="a new plugin server")
        else:
            self._supervisor[name].wait_ready(timeout_seconds=timeout_seconds)

    def pid(self, name: str) -> int:
        """Raises ChildFailedError while the process is not running."""
        if name != PLUGIN_SERVER:
            return self._supervisor[name].process.pid
        pid = self._plugin_server_pid()
        if pid is None:
            raise ChildFailedError("the plugin server is not running")
        return pid

    @property
    def database_dir(self) -> Path:
        """PostgreSQL's own files; they may lie outside `data_dir`."""
        return self._postgres.data_dir

    def log_path(self, name: str) -> Path:
        if name == "postgres":
            return self.database_dir / "postgres.log"
        if name in self._valkeys():
            return self._valkeys()[name].data_dir / "valkey.log"
        return self.data_dir / "logs" / f"{'gateway' if name == PLUGIN_SERVER else name}.log"

    # --- commands

    def km(self, *arguments: str, stdin: str | None = None) -> str:
        """Run a `km` command against this stack and return what it prints. Raises ChildFailedError."""
        token = {"KM_TOKEN": self.admin_token} if self.has_admin_token else {}
        result = subprocess.run(
            [sys.executable, "-m", "control_plane.entrypoints.cli", *arguments],
            env=self.control_environment() | {"KM_URL": self.control_url} | token,
            cwd=REPOSITORY,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )
        if result.returncode != 0:
            raise ChildFailedError(f"km {' '.join(arguments)}: {result.stderr.strip() or result.stdout.strip()}")
        return result.stdout

    # --- inside

    def _start(self) -> None:
        self._leaving.enter_context(sole_use_of(self.data_dir))
        self._prepare_files()
        with ThreadPoolExecutor() as pool:
            stores = [
                pool.submit(self._supervisor.start, "postgres", self._postgres),
                *(pool.submit(self._supervisor.start, name, valkey) for name, valkey in self._valkeys().items()),
            ]
            others = [
                pool.submit(self._supervisor.start, "upstream", CommandProcess(self._upstream)),
                pool.submit(self._supervisor.start, "gateway", CommandProcess(self._gateway)),
            ]
            if self.has_mailbox:
                others.append(pool.submit(self._supervisor.start, "mailbox", CommandProcess(self._mailbox)))
            if self.simulated_stripe is not None:
                others.append(pool.submit(self._supervisor.start, "stripe", self.simulated_stripe))
            for job in stores:
                job.result()
            if self.redis_cluster is not None:
                self.redis_cluster.form()
            others.append(pool.submit(self._supervisor.start, "shipper", CommandProcess(self._shipper)))
            self._prepare_database()
            for job in others:
                job.result()
        self._supervisor.start("server", CommandProcess(self._server))
        if self.simulated_stripe is not None:
            self.km("stripe", "setup", "--url", self.control_url)
        self.wait_ready(PLUGIN_SERVER)

    def _valkeys(self) -> dict[str, EmbeddedValkey]:
        if self.redis_cluster is None:
            return {"valkey": self._valkey}
        return {f"valkey-{number}": node for number, node in enumerate(self.redis_cluster.nodes)}

    def _prepare_files(self) -> None:
        if self.redis_cluster is not None:
            # nodes remember where the others were; in an earlier run they were elsewhere
            shutil.rmtree(self.data_dir / "valkey", ignore_errors=True)
        for name in ("logs", "spool", "events", "run"):
            (self.data_dir / name).mkdir(parents=True, exist_ok=True)
        if len(os.fsencode(self._socket)) > LONGEST_SOCKET_PATH:
            short = self._leaving.enter_context(tempfile.TemporaryDirectory(prefix="km-"))
            self._socket = Path(short) / "km.sock"
        self.read_secrets()
        base = self._kong_config.read_text()
        rendered = render_base_config(base, upstream_port=self.ports.upstream, spool_dir=self.spool_dir)
        (self.data_dir / "kong.yml").write_text(rendered)
        conf = render_gateway_conf(
            socket=self._socket,
            configuration=self.data_dir / "kong.yml",
            proxy_port=self.ports.proxy,
            admin_port=self.ports.kong_admin,
            metrics_port=self.ports.plugin_server,
            workers=self.plugin_workers,
            environment=self.gateway_environment(),
        )
        write_private(self.data_dir / "kong.conf", conf)

    def _prepare_database(self) -> None:
        with psycopg.connect(self._postgres.dsn) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
        if found is None:
            self._postgres.create_database(DATABASE)
        self.km("db", "upgrade")
        if not self.has_admin_token:
            self.keep_admin_token(self.km("db", "create-token", "--name", "dev").strip())

    def _upstream(self) -> Command:
        port = self.ports.upstream
        argv = ["devstack.upstream", "--port", str(port)]
        if self._record_upstream:
            argv += ["--journal", str(self.upstream_journal)]
        return self._command("upstream", argv, lambda: is_listening(port))

    def _gateway(self) -> Command:
        argv = ["devstack.gateway", "--conf", str(self.data_dir / "kong.conf")]
        return self._command("gateway", argv, lambda: answers_ok(f"{self.admin_api_url}/status"))

    def _mailbox(self) -> Command:
        ports = ["--smtp-port", str(self.ports.smtp), "--port", str(self.ports.mailbox)]
        argv = ["devstack.mailbox", *ports, "--directory", str(self.data_dir / "mailbox")]
        return self._command("mailbox", argv, lambda: answers_ok(self.mailbox_url))

    def _shipper(self) -> Command:
        argv = ["kong_plugins.shipper.main", "--port", str(self.ports.shipper)]
        health = f"http://127.0.0.1:{self.ports.shipper}/healthz"
        return self._command("shipper", argv, lambda: answers_ok(health))

    def _server(self) -> Command:
        argv = ["control_plane.entrypoints.cli", "serve"]
        return self._command("server", argv, lambda: answers_ok(f"{self.control_url}/healthz"))

    def _command(self, name: str, module: list[str], ready: Any) -> Command:
        return Command(
            argv=[sys.executable, "-m", *module],
            env=self.control_environment(),
            cwd=REPOSITORY,
            log_path=self.log_path(name),
            ready=ready,
        )

    def _plugin_server_pid(self) -> int | None:
        try:
            with urlopen(self.admin_api_url, timeout=2) as answer:  # noqa: S310 - our own loopback address
                servers: dict[str, int | None] = json.load(answer)["pluginservers"]
        except OSError:
            return None
        return next(iter(servers.values()), None)

    def _plugin_server_is_ready(self) -> bool:
        return self._plugin_server_pid() is not None and answers_ok(
            f"http://127.0.0.1:{self.ports.plugin_server}/readyz"
        )


@contextlib.contextmanager
def temporary_stack(**options: Any) -> Iterator[Stack]:
    """A stack in a directory of its own that is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="km-stack-") as directory:
        stack = Stack(Path(directory), **options)
        try:
            stack.start()
            yield stack
        finally:
            stack.destroy()
