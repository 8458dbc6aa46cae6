from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.shipper.support import Bench, FakeCollector, ShipperProcess


@pytest.fixture
def spool_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "spool"
    directory.mkdir()
    return directory


@pytest.fixture
def make_bench(redis_url: str, spool_dir: Path) -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def make(*, url: str = redis_url, directory: Path = spool_dir, **settings: object) -> Bench:
        benches.append(Bench(url, directory, **settings))
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()


@pytest.fixture
def make_collector() -> Iterator[Callable[[str, str], FakeCollector]]:
    collectors: list[FakeCollector] = []

    def make(url: str, shipper_id: str) -> FakeCollector:
        collectors.append(FakeCollector(url, shipper_id))
        return collectors[-1]

    yield make
    for collector in collectors:
        collector.close()


@pytest.fixture
def start_process(spool_dir: Path) -> Iterator[Callable[..., ShipperProcess]]:
    processes: list[ShipperProcess] = []

    def start(url: str, *options: str, **environment: str) -> ShipperProcess:
        processes.append(ShipperProcess(url, spool_dir, *options, **environment))
        return processes[-1]

    yield start
    for running in processes:
        if running.process.poll() is None:
            running.kill()
