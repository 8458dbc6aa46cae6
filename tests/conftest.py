"""Stores shared by all tests: real ones, started once, clean for each test."""

import importlib
import os
import re
import resource
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import clickhouse_connect
import psutil
import pytest
import redis
from hypothesis import HealthCheck, settings

from devstack.stores.event_store import event_store_dsn
from devstack.stores.kafka import EmbeddedKafka
from devstack.stores.postgres import EmbeddedPostgres
from devstack.stores.valkey import EmbeddedValkey
from devstack.stores.valkey_cluster import EmbeddedValkeyCluster
from gateway_contract.kafka import KafkaAddress

TEMPLATE = "km_template"
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 2 << 30
DESCRIPTORS = 16_384
# a loaded machine must break no property
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

LONG_WORD = re.compile(r"[A-Za-z0-9]{12,}")


def pytest_configure() -> None:
    """Allow more descriptors: chDB keeps three for each thread that ever asked it; tests have many threads."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name tests alike in every process: keys that are drawn anew in each are left out of the names.

    So are bytes: a compressed text holds the moment at which it was made.
    """
    if isinstance(val, bytes):
        return f"{len(val)} bytes"
    if not isinstance(val, str) or not LONG_WORD.search(val):
        return None
    return LONG_WORD.sub("LONG", val.encode("unicode_escape").decode())


def sqlalchemy_url(dsn: str) -> str:
    return dsn.replace("postgresql://", "postgresql+psycopg://", 1)


@pytest.fixture(scope="session")
def store_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where stores keep their files: in memory where there is room, since each test copies a whole database.

    On a disk that takes ten times as long. What a killed run has left there is removed.
    """
    if not has_room_in_memory():
        yield tmp_path_factory.mktemp("stores")
        return
    for left in MEMORY.glob("km-tests-*"):
        if not psutil.pid_exists(int(left.name.split("-")[2])):
            shutil.rmtree(left, ignore_errors=True)
    directory = Path(tempfile.mkdtemp(prefix=f"km-tests-{os.getpid()}-", dir=MEMORY))
    directory.chmod(0o755)  # PostgreSQL runs as nobody where we are root
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def has_room_in_memory() -> bool:
    if not (MEMORY.is_dir() and os.access(MEMORY, os.W_OK)):
        return False
    runs_programs = not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
    return runs_programs and shutil.disk_usage(MEMORY).free > MEMORY_BYTES


@pytest.fixture(scope="session")
def postgres_server(store_directory: Path) -> Iterator[EmbeddedPostgres]:
    """One server for all tests; never kill this one, use `own_postgres`."""
    server = EmbeddedPostgres(store_directory / "postgres", fast=True)
    server.start()
    yield server
    server.destroy()


@pytest.fixture(scope="session")
def migrated_template(postgres_server: EmbeddedPostgres) -> str:
    """Name of a database at the newest migration; each test's database is a copy of it."""
    # imported here: only tests that want tables pay for the migrations
    migrations = importlib.import_module("control_plane.entrypoints.migrations")
    migrations.upgrade(sqlalchemy_url(postgres_server.create_database(TEMPLATE)))
    return TEMPLATE


@pytest.fixture
def database_url(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """SQLAlchemy URL of a fresh migrated database."""
    name = f"test_{secrets.token_hex(6)}"
    yield sqlalchemy_url(postgres_server.create_database(name, template=migrated_template))
    postgres_server.drop_database(name)


@pytest.fixture
def empty_database_url(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """SQLAlchemy URL of a fresh database without any table."""
    name = f"empty_{secrets.token_hex(6)}"
    yield sqlalchemy_url(postgres_server.create_database(name))
    postgres_server.drop_database(name)


@pytest.fixture
def own_postgres(store_directory: Path) -> Iterator[Callable[[], EmbeddedPostgres]]:
    """Makes started PostgreSQL servers that the test may kill."""
    servers: list[EmbeddedPostgres] = []

    def start() -> EmbeddedPostgres:
        directory = store_directory / f"postgres-{secrets.token_hex(6)}"
        servers.append(EmbeddedPostgres(directory, fast=True))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.destroy()


@pytest.fixture(scope="session")
def valkey_server(store_directory: Path) -> Iterator[EmbeddedValkey]:
    """One server for all tests; never kill or pause this one, use `own_valkey`."""
    server = EmbeddedValkey(store_directory / "valkey")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(valkey_server: EmbeddedValkey) -> str:
    """URL of the shared Valkey, emptied."""
    with redis.Redis.from_url(valkey_server.url) as client:
        client.flushall()
    return valkey_server.url


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Callable[[], EmbeddedValkey]]:
    """Makes started Valkey servers that the test may kill or pause."""
    servers: list[EmbeddedValkey] = []

    def start() -> EmbeddedValkey:
        servers.append(EmbeddedValkey(tmp_path / f"valkey-{len(servers)}"))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def valkey_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkeyCluster]:
    """Three primaries for all tests; never kill or pause these, use `own_valkey_cluster`."""
    cluster = EmbeddedValkeyCluster(tmp_path_factory.mktemp("valkey-cluster"))
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def cluster_url(valkey_cluster: EmbeddedValkeyCluster) -> str:
    """URL of the shared cluster, emptied."""
    valkey_cluster.flush()
    return valkey_cluster.url


@pytest.fixture
def own_valkey_cluster(tmp_path: Path) -> Iterator[Callable[..., EmbeddedValkeyCluster]]:
    """Makes started clusters whose nodes the test may kill or pause; each primary has a replica."""
    clusters: list[EmbeddedValkeyCluster] = []

    def start(**options: Any) -> EmbeddedValkeyCluster:
        options = {"replicas": 1, "node_timeout_ms": 1_500, **options}
        clusters.append(EmbeddedValkeyCluster(tmp_path / f"cluster-{len(clusters)}", **options))
        clusters[-1].start()
        return clusters[-1]

    yield start
    for cluster in clusters:
        cluster.stop()


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """One broker for all tests; never kill or pause this one, use `own_kafka`."""
    server = EmbeddedKafka(tmp_path_factory.mktemp("kafka"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def kafka_broker(kafka_server: EmbeddedKafka) -> KafkaAddress:
    """Address of the shared broker, with a topic and a group that nobody has used."""
    name = secrets.token_hex(6)
    return KafkaAddress(bootstrap_servers=kafka_server.address, topic=f"usage-{name}", group=f"group-{name}")


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Callable[..., EmbeddedKafka]]:
    """Makes started brokers that the test may kill or pause."""
    servers: list[EmbeddedKafka] = []

    def start(*options: str, **ports: int) -> EmbeddedKafka:
        servers.append(EmbeddedKafka(tmp_path / f"kafka-{len(servers)}", options=options, **ports))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def event_store_directory(store_directory: Path) -> Path:
    """chDB lets a process open one directory at a time, so all tests share this one."""
    return store_directory / "events"


@pytest.fixture
def empty_clickhouse_dsn(event_store_directory: Path) -> Iterator[str]:
    """DSN of a fresh, existing, empty ClickHouse database opened inside this process.

    Close every client before the test ends. For a process of its own use `own_clickhouse_dsn`.
    """
    name = f"test_{secrets.token_hex(6)}"
    client = clickhouse_connect.get_client(dsn=event_store_dsn(event_store_directory))
    client.command(f"CREATE DATABASE {name}")
    yield event_store_dsn(event_store_directory, database=name)
    client.command(f"DROP DATABASE {name}")
    client.close()


@dataclass
class _SharedTables:
    """A database of the event store with its tables, made once and emptied between tests."""

    directory: Path
    client: Any
    name: str = ""
    shape: list[Any] = field(default_factory=list)

    def dsn(self) -> str:
        return event_store_dsn(self.directory, database=self.name)

    def make(self) -> None:
        # imported here: only tests that want tables pay for what makes them
        store = importlib.import_module("control_plane.usage.store")
        self.name = f"test_{secrets.token_hex(6)}"
        self.client.command(f"CREATE DATABASE {self.name}")
        client = clickhouse_connect.get_client(dsn=self.dsn())
        store.migrate(client)
        client.close()
        self.shape = self._shape()

    def empty(self) -> None:
        """Make it as it was; one whose tables a test has changed is made anew."""
        if self.shape != self._shape():
            self.client.command(f"DROP DATABASE {self.name}")
            self.make()
            return
        self.client.command(f"SYSTEM START MERGES {self.name}.usage_events")  # tests of parts stop them
        for name, rows, _ in self._tables():
            if rows and name != "usage_store_migrations":
                self.client.command(f"TRUNCATE TABLE {self.name}.{name}")

    def _shape(self) -> list[Any]:
        return [(name, form) for name, _, form in self._tables()]

    def _tables(self) -> list[Any]:
        statement = (
            "SELECT name, total_rows, create_table_query FROM system.tables "
            f"WHERE database = '{self.name}' ORDER BY name"
        )
        return list(self.client.query(statement).result_rows)


@pytest.fixture(scope="session")
def shared_event_tables(event_store_directory: Path) -> Iterator[_SharedTables]:
    client = clickhouse_connect.get_client(dsn=event_store_dsn(event_store_directory))
    tables = _SharedTables(event_store_directory, client)
    tables.make()
    yield tables
    client.close()


@pytest.fixture
def clickhouse_dsn(shared_event_tables: _SharedTables) -> Iterator[str]:
    """DSN like `empty_clickhouse_dsn`, with empty tables that keep events of any age.

    Tests choose their time, but ClickHouse has its own clock, by which their events may have expired.
    """
    for table in ("usage_events", "usage_dead_letters"):
        shared_event_tables.client.command(f"SYSTEM STOP TTL MERGES {shared_event_tables.name}.{table}")
    yield shared_event_tables.dsn()
    shared_event_tables.empty()


@pytest.fixture
def own_clickhouse_dsn(tmp_path: Path) -> str:
    """DSN of a directory that this process has not opened: for a server that runs as a child."""
    return event_store_dsn(tmp_path / "events")
