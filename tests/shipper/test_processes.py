"""`km-shipper` as a process of its own, killed at any moment; writers and Valkey as processes too."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devstack.stores.valkey import EmbeddedValkey
from tests.shipper.support import (
    KEY,
    ROOT,
    FakeCollector,
    ShipperProcess,
    append,
    file_log_lines,
    wait_until,
)

StartProcess = Callable[..., ShipperProcess]
MakeCollector = Callable[[str, str], FakeCollector]

# Opens, writes and closes for each line, as file-log does with `reopen`; in bursts, so that two cores suffice.
WRITER = """
import sys, time
from pathlib import Path
from tests.shipper.support import append, file_log_lines
path, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for number in range(first, first + count):
    append(path, file_log_lines([number]))
    if number % 20 == 0:
        time.sleep(0.01)
"""


@contextmanager
def writers(directory: Path, *, processes: int, lines_each: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, directory / "usage.log", str(number * lines_each), str(lines_each)],
            cwd=ROOT,
        )
        for number in range(processes)
    ]
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


def shipper_id(directory: Path) -> str:
    path = directory / "shipper-id"
    wait_until(path.exists, what="the shipper's id")
    return path.read_text().strip()


class TestRenameUnderWriters:
    def test_every_line_of_four_writing_processes_arrives_once(
        self, redis_url: str, spool_dir: Path, start_process: StartProcess, make_collector: MakeCollector
    ) -> None:
        start_process(redis_url).wait_started()
        collector = make_collector(redis_url, shipper_id(spool_dir)).start()
        with writers(spool_dir, processes=4, lines_each=1000) as running:
            assert [process.wait(60) for process in running] == [0] * 4
        wait_until(lambda: collector.has_all(range(4000)), what="4,000 lines")

        assert set(collector.arrivals.values()) == {1}
        assert collector.dropped == {}
        assert len(list((spool_dir / "segments").iterdir())) > 1


class TestKilled:
    @pytest.mark.parametrize("seed", range(2))
    def test_nothing_is_lost_when_the_shipper_is_killed_again_and_again(
        self,
        redis_url: str,
        spool_dir: Path,
        start_process: StartProcess,
        make_collector: MakeCollector,
        seed: int,
    ) -> None:
        chance = random.Random(seed)
        shipper = start_process(redis_url)
        collector = make_collector(redis_url, shipper_id(spool_dir)).start()
        with writers(spool_dir, processes=2, lines_each=2500) as running:
            for _ in range(6):
                # from before it is up to well into its work
                time.sleep(chance.uniform(0.05, 0.9))
                shipper.kill()
                shipper = start_process(redis_url)
            assert [process.wait(60) for process in running] == [0] * 2
        wait_until(lambda: collector.has_all(range(5000)), what="5,000 lines")

        assert all(len(texts) == 1 for texts in collector.texts.values()), "a repeat is the same byte for byte"
        assert collector.dropped == {}
        assert collector.gaps == []

    def test_nothing_is_lost_when_valkey_is_emptied_killed_and_paused(
        self,
        own_valkey: Callable[[], EmbeddedValkey],
        spool_dir: Path,
        start_process: StartProcess,
        make_collector: MakeCollector,
    ) -> None:
        server = own_valkey()
        start_process(server.url).wait_started()
        collector = make_collector(server.url, shipper_id(spool_dir)).start()
        with writers(spool_dir, processes=2, lines_each=2500) as running:
            for move in ("flush", "kill", "flush", "pause"):
                time.sleep(0.4)
                if move == "flush":
                    subprocess_flush(server)
                elif move == "kill":
                    server.kill()
                    time.sleep(0.3)
                    server.restart()
                else:
                    server.pause()
                    time.sleep(0.5)
                    server.resume()
            assert [process.wait(60) for process in running] == [0] * 2
        wait_until(lambda: collector.has_all(range(5000)), what="5,000 lines")

        assert all(len(texts) == 1 for texts in collector.texts.values())
        assert collector.dropped == {}


class TestProcess:
    def test_a_second_one_on_the_directory_is_refused(
        self, redis_url: str, spool_dir: Path, start_process: StartProcess
    ) -> None:
        first = start_process(redis_url)
        first.wait_started()
        second = start_process(redis_url)

        assert second.process.wait(20) == 3
        assert "one directory, one shipper" in second.log()
        assert str(first.process.pid) in second.log()
        assert first.process.poll() is None

    def test_a_missing_option_is_named(self, start_process: StartProcess) -> None:
        process = start_process("redis://127.0.0.1:1/0", "--stream-shards", "0")

        assert process.process.wait(20) == 2
        assert "--stream-shards must be more than 0" in process.log()

    def test_sigterm_ends_it_in_order(self, redis_url: str, spool_dir: Path, start_process: StartProcess) -> None:
        shipper = start_process(redis_url)
        shipper.wait_started()
        append(spool_dir / "usage.log", file_log_lines(range(100)))

        assert shipper.terminate() == 0
        assert '"stopped"' in shipper.log()

    def test_its_pages_say_how_it_is(
        self, redis_url: str, spool_dir: Path, start_process: StartProcess, make_collector: MakeCollector
    ) -> None:
        shipper = start_process(redis_url)
        collector = make_collector(redis_url, shipper_id(spool_dir)).start()
        append(spool_dir / "usage.log", file_log_lines(range(7)) + KEY.encode() + b"\n")
        wait_until(lambda: collector.has_all(range(7)), what="7 lines")
        wait_until(lambda: "km_shipper_lines_shipped_total 7.0" in shipper.get("/metrics"), what="metrics")

        assert json.loads(shipper.get("/healthz"))["silent_seconds"] < 10
        state = json.loads(shipper.get("/readyz"))
        assert state["ready"] is True
        assert state["shipper"] == shipper_id(spool_dir)
        assert 'km_shipper_lines_dropped_total{reason="unreadable"} 1.0' in shipper.get("/metrics")
        assert KEY[8:] not in shipper.log()
        assert all(json.loads(line) for line in shipper.log().splitlines())


def subprocess_flush(server: EmbeddedValkey) -> None:
    collector = FakeCollector(server.url, "shp_none")
    collector.redis.flushall()
    collector.close()
