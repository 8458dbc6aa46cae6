"""PostgreSQL 18 as a child process."""

import hashlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
from psycopg import sql

from devstack.children import Child, ChildFailedError, RunAs, start_child
from devstack.ports import free_port
from devstack.stores.binaries import postgres_install

START_SECONDS = 60.0
# a commit still reaches the operating system before it is acknowledged: kill -9 loses nothing
FAST_SETTINGS = {"fsync": "off", "full_page_writes": "off"}
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "timezone": "UTC",
}


class EmbeddedPostgres:
    """A PostgreSQL server of our own on 127.0.0.1, superuser `postgres`, no password.

    As root it runs as the user `nobody`, since PostgreSQL refuses root. No mode of any directory above
    `data_dir` is changed: where that user cannot reach `data_dir`, the cluster lives under the system's
    temporary directory instead, at a place derived from `data_dir`, so a second start finds it again.
    """

    def __init__(self, data_dir: Path, *, port: int | None = None, fast: bool = False) -> None:
        """`fast` gives up durability against power loss (not against kill -9): for tests."""
        self._run_as = _unprivileged_user()
        self.data_dir = _reachable_data_dir(data_dir.absolute(), self._run_as)
        self.port = port or free_port()
        self._fast = fast
        self._child: Child | None = None
        self._install: Path | None = None

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self) -> None:
        """Returns when the server answers queries; makes the cluster at the first start."""
        self._prepare_data_dir()
        deadline = time.monotonic() + START_SECONDS
        while True:
            self._child = self._spawn()
            try:
                self._child.wait_until(self._answers, timeout_seconds=max(1.0, deadline - time.monotonic()))
            except ChildFailedError:
                # after a kill the old backends may still hold the shared memory for a moment
                self._child.kill()
                if time.monotonic() > deadline - START_SECONDS / 2:
                    raise
                time.sleep(0.2)
            else:
                return

    def stop(self) -> None:
        """PostgreSQL's fast shutdown: orderly, clients are disconnected. Harmless when not running."""
        if self._child is not None:
            self._child.stop(number=signal.SIGINT)
            self._child = None

    def has_ended(self) -> bool:
        """It was started and has ended, whoever did it."""
        return self._child is not None and self._child.exit_code() is not None

    def kill(self) -> None:
        """SIGKILL to the server and every backend, as a crash of the machine's process would do."""
        self._running().kill()
        self._child = None

    def restart(self) -> None:
        """On the same port with the same data, whether it runs, was stopped or was killed."""
        self.stop()
        self.start()

    def destroy(self) -> None:
        """Stop and delete every database, the cluster and its log."""
        self.stop()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def create_database(self, name: str, *, template: str | None = None) -> str:
        """Returns the DSN of the new database; `template` must have no connections."""
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {} STRATEGY FILE_COPY").format(sql.Identifier(template))
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(statement)
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    def drop_database(self, name: str) -> None:
        """Whoever is still connected is disconnected."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _running(self) -> Child:
        if self._child is None:
            raise ChildFailedError("PostgreSQL is not running")
        return self._child

    def _prepare_data_dir(self) -> None:
        if not self.data_dir.exists():
            self.data_dir.mkdir(mode=0o700, parents=True)
            if self._run_as:
                os.chown(self.data_dir, self._run_as.uid, self._run_as.gid)
        self._install = self._install or self._usable_install()
        if not (self._cluster / "PG_VERSION").exists():
            self._init_cluster()

    def _usable_install(self) -> Path:
        install = postgres_install()
        if self._run_as is None or _can_read(install / "bin" / "postgres", self._run_as):
            return install
        copies = self.data_dir / "install"
        if not copies.exists():
            half_done = copies.with_name("install.partial")
            shutil.rmtree(half_done, ignore_errors=True)
            # the binaries look for their libraries beside the package: the copy keeps that layout
            for directory in (install, install.parent.with_name(f"{install.parent.name}.libs")):
                if directory.exists():
                    target = half_done / directory.relative_to(install.parent.parent)
                    shutil.copytree(directory, target, symlinks=True)
            for path in [half_done, *half_done.rglob("*")]:
                os.chown(path, self._run_as.uid, self._run_as.gid, follow_symlinks=False)
            half_done.rename(copies)
        return copies / install.relative_to(install.parent.parent)

    @property
    def _cluster(self) -> Path:
        return self.data_dir / "cluster"

    def _init_cluster(self) -> None:
        assert self._install is not None  # noqa: S101 - set by _prepare_data_dir, the only caller
        # a cluster that was being made when we died is worth nothing
        shutil.rmtree(self._cluster, ignore_errors=True)
        argv = [str(self._install / "bin" / "initdb"), "-D", str(self._cluster), "-U", "postgres"]
        argv += ["--auth=trust", "--encoding=UTF8", "--no-locale", "--no-instructions"]
        if self._fast:
            argv.append("--no-sync")
        identity = {"user": self._run_as.uid, "group": self._run_as.gid} if self._run_as else {}
        result = subprocess.run(
            argv,
            env=_environment(),
            cwd=self.data_dir,
            capture_output=True,
            text=True,
            check=False,
            extra_groups=[] if self._run_as else None,
            **identity,  # type: ignore[call-overload]
        )
        if result.returncode != 0:
            shutil.rmtree(self._cluster, ignore_errors=True)
            raise ChildFailedError(f"initdb failed: {result.stderr or result.stdout}")

    def _spawn(self) -> Child:
        assert self._install is not None  # noqa: S101 - set by _prepare_data_dir, the only caller
        settings = SETTINGS | (FAST_SETTINGS if self._fast else {})
        argv = [str(self._install / "bin" / "postgres"), "-D", str(self._cluster), "-p", str(self.port)]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        return start_child(
            argv,
            env=_environment(),
            cwd=self.data_dir,
            log_path=self.data_dir / "postgres.log",
            run_as=self._run_as,
            # immediate shutdown: as good as a kill for us, and it frees its shared memory
            death_signal=signal.SIGQUIT,
        )

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.dsn, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


def _environment() -> dict[str, str]:
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def _unprivileged_user() -> RunAs | None:
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return RunAs(uid=nobody.pw_uid, gid=nobody.pw_gid)


def _reachable_data_dir(data_dir: Path, run_as: RunAs | None) -> Path:
    if run_as is None:
        return data_dir
    if data_dir.exists():
        if data_dir.stat().st_uid == run_as.uid and _can_enter_parents(data_dir, run_as):
            return data_dir
    elif _can_enter_parents(data_dir, run_as):
        return data_dir
    digest = hashlib.sha256(str(data_dir).encode()).hexdigest()[:16]
    substitute = Path(tempfile.gettempdir()) / f"kong-monetize-postgres-{digest}"
    if substitute.exists() and substitute.lstat().st_uid != run_as.uid:
        raise ChildFailedError(
            f"{substitute} belongs to somebody else; remove it or choose another data directory"
        )
    return substitute


def _can_enter_parents(path: Path, run_as: RunAs) -> bool:
    return all(_allows(parent, run_as, stat.S_IXOTH) for parent in path.parents if parent.exists())


def _can_read(path: Path, run_as: RunAs) -> bool:
    return _allows(path, run_as, stat.S_IROTH | stat.S_IXOTH) and _can_enter_parents(path, run_as)


def _allows(path: Path, run_as: RunAs, others_bits: int) -> bool:
    status = path.stat()
    shift = 6 if status.st_uid == run_as.uid else 3 if status.st_gid == run_as.gid else 0
    return (status.st_mode >> shift) & others_bits == others_bits
