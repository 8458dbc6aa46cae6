"""One shipper with a clock of its own, a real Valkey, and a collector that commits when the test says so."""

import errno
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from devstack.stores.valkey import EmbeddedValkey
from gateway_contract import redis_names
from kong_plugins.shipper.in_flight import LONGEST_WAIT_SECONDS
from tests.shipper.support import (
    KEY,
    TEMPLATE,
    Bench,
    FakeCollector,
    append,
    file_log_line,
    file_log_lines,
    request_id,
)

MakeBench = Callable[..., Bench]
MakeCollector = Callable[[str, str], FakeCollector]


class TestDelivery:
    def test_every_line_of_every_live_file_arrives_once(
        self, make_bench: MakeBench, make_collector: MakeCollector
    ) -> None:
        bench = make_bench()
        collector = make_collector(bench.url, bench.spool.shipper_id)
        for start in range(0, 3000, 1000):
            append(bench.live, file_log_lines(range(start, start + 600)))
            append(bench.directory / "meter.log", file_log_lines(range(start + 600, start + 1000)))
            bench.step()
            collector.pump()

        assert collector.has_all(range(3000))
        assert set(collector.arrivals.values()) == {1}
        assert collector.gaps == []
        assert bench.value("lines_shipped_total") == 3000

    def test_a_line_written_into_a_renamed_file_arrives(
        self, make_bench: MakeBench, make_collector: MakeCollector
    ) -> None:
        bench = make_bench()
        collector = make_collector(bench.url, bench.spool.shipper_id)
        with bench.live.open("ab", buffering=0) as held:
            held.write(file_log_lines([1]))
            bench.step()
            held.write(file_log_line(2)[:100])
            bench.step()
            held.write(file_log_line(2)[100:] + b"\n")
        bench.step()
        collector.pump()

        assert len(bench.segment_files()) == 1
        assert set(collector.arrivals.items()) == {(request_id(1), 1), (request_id(2), 1)}
        assert bench.rejected() == []

    def test_after_a_start_only_what_is_not_committed_goes_again(
        self, make_bench: MakeBench, make_collector: MakeCollector
    ) -> None:
        bench = make_bench()
        collector = make_collector(bench.url, bench.spool.shipper_id)
        append(bench.live, file_log_lines(range(10)))
        bench.step()
        collector.pump()
        append(bench.segment_files()[0], file_log_lines(range(10, 20)))
        bench.step()
        bench.restart()
        bench.step()
        collector.pump()

        assert [collector.arrivals[request_id(number)] for number in (0, 9, 10, 19)] == [1, 1, 2, 2]
        assert all(len(texts) == 1 for texts in collector.texts.values())


class TestDeletion:
    def test_waits_for_the_commit_and_for_the_last_writer(
        self, make_bench: MakeBench, make_collector: MakeCollector
    ) -> None:
        bench = make_bench()
        collector = make_collector(bench.url, bench.spool.shipper_id)
        append(bench.live, file_log_lines([1]))
        bench.step()
        bench.step(after_seconds=100)
        assert len(bench.segment_files()) == 1, "not committed"

        collector.pump()
        append(bench.segment_files()[0], file_log_lines([2]))
        bench.step(after_seconds=59)
        collector.pump()
        bench.step(after_seconds=59)
        assert len(bench.segment_files()) == 1, "grew less than a minute ago"

        bench.step(after_seconds=2)
        assert bench.segment_files() == []
        assert collector.has_all([1, 2])

        bench.step()
        assert collector.redis.exists(collector.positions_key) == 0, "positions of deleted segments are removed"

    def test_a_segment_that_grew_unseen_is_not_deleted(
        self, make_bench: MakeBench, make_collector: MakeCollector
    ) -> None:
        bench = make_bench()
        collector = make_collector(bench.url, bench.spool.shipper_id)
        append(bench.live, file_log_lines([1]))
        bench.step()
        bench.step(after_seconds=61)
        bench.step()
        append(bench.segment_files()[0], file_log_lines([2]))
        collector.pump()
        bench.step()
        bench.step()
        collector.pump()

        assert len(bench.segment_files()) == 1
        assert collector.has_all([1, 2])

    def test_after_a_start_the_minute_begins_again(
        self, make_bench: MakeBench, make_collector: MakeCollector
    ) -> None:
        bench = make_bench()
        collector = make_collector(bench.url, bench.spool.shipper_id)
        append(bench.live, file_log_lines([1]))
        bench.step()
        collector.pump()
        bench.now += 59
        bench.restart()
        bench.step()
        bench.step(after_seconds=58)
        assert len(bench.segment_files()) == 1
        bench.step(after_seconds=3)
        assert bench.segment_files() == []


class TestLostInRedis:
    def test_flushall_makes_everything_uncommitted_go_again(
        self, make_bench: MakeBench, make_collector: MakeCollector
    ) -> None:
        bench = make_bench()
        collector = make_collector(bench.url, bench.spool.shipper_id)
        append(bench.live, file_log_lines(range(5)))
        bench.step()
        collector.pump()
        bench.step()
        append(bench.live, file_log_lines(range(5, 10)))
        bench.step()
        collector.redis.flushall()
        bench.step()
        bench.step()
        collector.pump()

        assert collector.has_all(range(10))
        assert set(collector.arrivals.values()) == {1}, "what was committed did not go again"
        assert bench.value("resends_total", reason="epoch_lost") == 1

    def test_a_restarted_server_that_kept_the_epoch_counts_as_one_that_lost_lines(
        self, make_bench: MakeBench, make_collector: MakeCollector, own_valkey: Callable[[], EmbeddedValkey]
    ) -> None:
        server = own_valkey()
        bench = make_bench(url=server.url)
        collector = make_collector(bench.url, bench.spool.shipper_id)
        append(bench.live, file_log_lines(range(5)))
        bench.step()
        bench.step()
        epoch_key = redis_names.shipper_epoch(0, bench.spool.shipper_id)
        epoch = collector.redis.get(epoch_key)
        server.kill()
        server.restart()
        collector.redis.set(epoch_key, epoch)
        for _ in range(3):
            bench.step(after_seconds=10)
        collector.pump()

        assert collector.has_all(range(5))
        assert collector.claims_ms[0] == 0, "nothing was claimed before the lines were there"
        assert bench.value("resends_total", reason="server_changed") == 1

    def test_a_position_nobody_can_read_stops_nothing_for_good(
        self, make_bench: MakeBench, make_collector: MakeCollector
    ) -> None:
        bench = make_bench()
        collector = make_collector(bench.url, bench.spool.shipper_id)
        collector.redis.hset(collector.positions_key, "segment", "x")
        append(bench.live, file_log_lines([1]))
        bench.step()
        assert "ValueError" in bench.shipper.faults.last
        collector.redis.delete(collector.positions_key)
        bench.step(after_seconds=10)
        collector.pump()

        assert collector.has_all([1])

    def test_while_redis_is_away_lines_wait_in_one_file(
        self, make_bench: MakeBench, make_collector: MakeCollector, own_valkey: Callable[[], EmbeddedValkey]
    ) -> None:
        server = own_valkey()
        bench = make_bench(url=server.url)
        collector = make_collector(bench.url, bench.spool.shipper_id)
        bench.step()
        server.kill()
        for number in range(200):
            append(bench.live, file_log_lines([number]))
            bench.step()
        assert len(bench.segment_files()) == 1
        assert bench.shipper.show(now_ms=bench.now_ms)["ready"] is False
        assert bench.shipper.show(now_ms=bench.now_ms)["behind_seconds"] > 100

        server.restart()
        for _ in range(3):
            bench.step(after_seconds=10)
        collector.pump()

        assert collector.has_all(range(200))
        assert bench.shipper.show(now_ms=bench.now_ms)["ready"] is True

    def test_a_live_file_that_grew_large_becomes_a_segment_all_the_same(
        self, make_bench: MakeBench, redis_url: str
    ) -> None:
        bench = make_bench(url="redis://127.0.0.1:1/0", rotate_bytes=10_000)
        for number in range(30):
            append(bench.live, file_log_lines([number]))
            bench.step()

        assert 3 <= len(bench.segment_files()) <= 5

    def test_an_answer_that_did_not_come_means_the_entry_goes_again(
        self, make_bench: MakeBench, make_collector: MakeCollector, own_valkey: Callable[[], EmbeddedValkey]
    ) -> None:
        server = own_valkey()
        bench = make_bench(url=server.url)
        collector = make_collector(bench.url, bench.spool.shipper_id)
        bench.step()
        append(bench.live, file_log_lines([1]))
        server.pause()
        bench.step()
        server.resume()
        bench.step(after_seconds=10)
        collector.pump()

        assert collector.has_all([1])
        assert bench.value("redis_errors_total") == 1
        assert bench.value("resends_total", reason="server_changed") == 0

    def test_two_shippers_of_one_identity_do_not_flood_the_stream(
        self, make_bench: MakeBench, make_collector: MakeCollector, tmp_path: Path
    ) -> None:
        bench = make_bench()
        copied = tmp_path / "copied"
        copied.mkdir()
        (copied / "shipper-id").write_text(bench.spool.shipper_id)
        twin = make_bench(directory=copied)
        append(bench.live, file_log_lines([1]))
        append(twin.live, file_log_lines([2]))
        for _ in range(100):
            bench.step(after_seconds=0.2)
            twin.step(after_seconds=0.2)
        collector = make_collector(bench.url, bench.spool.shipper_id)
        collector.pump()

        assert collector.has_all([1, 2])
        assert collector.arrivals.total() < 10
        assert "copied" in bench.shipper.faults.last


class TestNoProgress:
    def test_entries_that_left_the_stream_uncommitted_go_again(
        self, make_bench: MakeBench, make_collector: MakeCollector
    ) -> None:
        bench = make_bench()
        collector = make_collector(bench.url, bench.spool.shipper_id)
        append(bench.live, file_log_lines([1]))
        bench.step()
        collector.redis.xtrim(collector.stream, maxlen=0)
        for _ in range(5):
            bench.step(after_seconds=5)
        assert collector.redis.xlen(collector.stream) == 5, "heartbeats only: patience has not run out"
        bench.step(after_seconds=10)
        bench.step()
        collector.pump()

        assert collector.has_all([1])
        assert bench.value("resends_total", reason="stream_lost") == 1

    def test_entries_acknowledged_without_a_commit_go_again_and_ever_more_rarely(
        self, make_bench: MakeBench, make_collector: MakeCollector
    ) -> None:
        bench = make_bench()
        collector = make_collector(bench.url, bench.spool.shipper_id)
        append(bench.live, file_log_lines([1]))
        for _ in range(40):
            bench.step(after_seconds=30)
            collector.pump(publish=False)
        assert 3 <= collector.arrivals[request_id(1)] <= 7

        collector.publish()
        bench.step()
        assert bench.shipper.show(now_ms=bench.now_ms)["uncommitted_entries"] == 0
        assert LONGEST_WAIT_SECONDS >= 1200

    def test_a_collector_that_is_away_gets_nothing_twice(
        self, make_bench: MakeBench, make_collector: MakeCollector
    ) -> None:
        bench = make_bench()
        collector = make_collector(bench.url, bench.spool.shipper_id)
        collector.pump()
        append(bench.live, file_log_lines([1]))
        for _ in range(20):
            bench.step(after_seconds=60)
        collector.redis.xreadgroup(redis_names.COLLECTOR_GROUP, "dead", {collector.stream: ">"})
        for _ in range(20):
            bench.step(after_seconds=60)

        assert bench.value("entries_shipped_total") == 1


class TestBackpressure:
    def test_a_full_stream_leaves_lines_on_disk(
        self, make_bench: MakeBench, make_collector: MakeCollector
    ) -> None:
        bench = make_bench(max_stream_entries=4)
        collector = make_collector(bench.url, bench.spool.shipper_id)
        append(bench.live, file_log_lines(range(4000)))
        for _ in range(10):
            bench.step()
        assert collector.redis.xlen(collector.stream) == 4
        assert bench.value("stream_full_total") > 0
        append(bench.live, file_log_lines(range(4000, 4100)))
        for _ in range(10):
            bench.step()
        assert len(bench.segment_files()) == 1

        for _ in range(10):
            collector.pump()
            bench.step()
        assert collector.has_all(range(4100))
        assert set(collector.arrivals.values()) == {1}

    def test_heartbeats_leave_half_of_the_stream_to_lines(self, make_bench: MakeBench) -> None:
        bench = make_bench(max_stream_entries=10)
        for _ in range(30):
            bench.step()
        with redis.Redis.from_url(bench.url) as client:
            assert client.xlen(bench.stream.name) == 5


class TestUnreadableLines:
    def test_are_kept_counted_and_passed(self, make_bench: MakeBench, make_collector: MakeCollector) -> None:
        bench = make_bench()
        collector = make_collector(bench.url, bench.spool.shipper_id)
        bad = b'{"request":{"headers":{"apikey":"' + KEY.encode() + b'"}}}\n'
        append(bench.live, file_log_lines([1]) + bad + file_log_lines([2]))
        bench.step()
        bench.step()
        collector.pump()
        bench.step()

        (segment,) = bench.segment_files()
        assert collector.has_all([1, 2])
        assert collector.committed == {segment.name: segment.stat().st_size}
        assert collector.dropped == {(segment.name, 0): 1}
        (rejected,) = bench.rejected()
        assert rejected["segment"] == segment.name
        assert rejected["offset"] == len(file_log_lines([1]))
        assert KEY not in (bench.directory / "rejected" / "rejected.jsonl").read_text()
        assert bench.value("lines_dropped_total", reason="unreadable") == 1

    def test_shipping_again_does_not_keep_them_again(
        self, make_bench: MakeBench, make_collector: MakeCollector
    ) -> None:
        bench = make_bench()
        append(bench.live, b"bad\n")
        bench.step()
        make_collector(bench.url, bench.spool.shipper_id).redis.flushall()
        bench.step()
        bench.step()

        assert len(bench.rejected()) == 1

    def test_a_quarantine_that_cannot_be_written_holds_nothing_up(
        self, make_bench: MakeBench, make_collector: MakeCollector
    ) -> None:
        bench = make_bench()
        collector = make_collector(bench.url, bench.spool.shipper_id)
        (bench.directory / "rejected" / "rejected.jsonl").symlink_to("/dev/full")
        append(bench.live, b"bad\n" + file_log_lines([1]))
        bench.step()
        collector.pump()

        assert collector.has_all([1])
        assert bench.value("quarantine_errors_total") == 1


class TestTornLastLine:
    def test_is_waited_for_then_counted_and_passed(
        self, make_bench: MakeBench, make_collector: MakeCollector
    ) -> None:
        bench = make_bench()
        collector = make_collector(bench.url, bench.spool.shipper_id)
        append(bench.live, file_log_lines([1]) + TEMPLATE[:300])
        bench.step()
        bench.step(after_seconds=50)
        collector.pump()
        (segment,) = bench.segment_files()
        assert collector.committed == {segment.name: len(file_log_lines([1]))}

        bench.step(after_seconds=15)
        collector.pump()
        assert collector.committed == {segment.name: segment.stat().st_size}
        assert [line["reason"] for line in bench.rejected()] == ["torn"]
        assert bench.value("lines_dropped_total", reason="torn") == 1

        bench.step()
        assert bench.segment_files() == []

    def test_does_not_hold_up_new_lines(self, make_bench: MakeBench, make_collector: MakeCollector) -> None:
        bench = make_bench()
        collector = make_collector(bench.url, bench.spool.shipper_id)
        append(bench.live, TEMPLATE[:300])
        bench.step()
        append(bench.live, file_log_lines([2]))
        bench.step()
        collector.pump()

        assert collector.has_all([2])


class TestDisk:
    def test_a_segment_nobody_can_read_holds_up_the_claim_and_nothing_else(
        self, make_bench: MakeBench, make_collector: MakeCollector
    ) -> None:
        bench = make_bench()
        collector = make_collector(bench.url, bench.spool.shipper_id)
        bad = bench.spool.segments_directory / "0000000000001-bad.seg"
        bad.mkdir()  # cannot be read by anyone, root included
        for start in range(0, 300, 100):
            append(bench.live, file_log_lines(range(start, start + 100)))
            bench.step(after_seconds=2.0)
            collector.pump()

        assert collector.has_all(range(300))
        assert bench.value("heartbeats_total") > 0
        assert "cannot read 0000000000001-bad.seg" in bench.shipper.faults.last
        assert max(collector.claims_ms) == 0

        bad.rmdir()
        bench.step(after_seconds=2.0)
        bench.step(after_seconds=2.0)
        collector.pump()
        assert max(collector.claims_ms) > 0

    def test_a_live_file_that_cannot_be_renamed_holds_up_no_other(
        self, make_bench: MakeBench, make_collector: MakeCollector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench = make_bench()
        collector = make_collector(bench.url, bench.spool.shipper_id)
        take = bench.spool.take

        def refuse_one(live_file: Path, *, now_ms: int) -> Path:
            if live_file.name == "another.log":
                raise PermissionError(errno.EPERM, "Operation not permitted", str(live_file))
            return take(live_file, now_ms=now_ms)

        monkeypatch.setattr(bench.spool, "take", refuse_one)
        append(bench.directory / "another.log", file_log_lines([1]))
        append(bench.live, file_log_lines([2]))
        bench.step(after_seconds=5.0)
        append(bench.live, file_log_lines([3]))
        bench.step(after_seconds=5.0)
        collector.pump()

        assert set(collector.arrivals) == {request_id(2), request_id(3)}
        assert max(collector.claims_ms) == 0  # what is in the other file is not shipped
        assert "cannot rename another.log" in bench.shipper.faults.last
        monkeypatch.undo()
        bench.step(after_seconds=5.0)
        collector.pump()
        assert collector.has_all([1])

    def test_a_segment_that_cannot_be_deleted_stops_no_sign_of_life(
        self, make_bench: MakeBench, make_collector: MakeCollector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench = make_bench()
        collector = make_collector(bench.url, bench.spool.shipper_id)
        append(bench.live, file_log_lines([1]))
        bench.step()
        collector.pump()

        def refuse(path: Path, missing_ok: bool = False) -> None:  # noqa: FBT001, FBT002 - Path's own signature
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

        monkeypatch.setattr(Path, "unlink", refuse)
        bench.step(after_seconds=70.0)
        told = len(collector.claims_ms)
        for _ in range(5):
            bench.step(after_seconds=2.0)
            collector.pump()
        monkeypatch.undo()

        assert len(collector.claims_ms) >= told + 5
        assert "cannot delete" in bench.shipper.faults.last

    def test_a_segment_removed_by_someone_is_said(self, make_bench: MakeBench) -> None:
        bench = make_bench()
        append(bench.live, file_log_lines([1]))
        bench.step()
        bench.segment_files()[0].unlink()
        bench.step()

        assert bench.value("segments_lost_total") == 1
        assert "removed by someone else" in bench.shipper.faults.last

    def test_a_password_in_the_url_is_in_no_error(self, make_bench: MakeBench) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            bench = make_bench(url=f"redis://me:s3cret@127.0.0.1:{unused.getsockname()[1]}/0")
            bench.step()

        assert bench.shipper.faults.last.startswith("redis: ")
        assert "s3cret" not in bench.shipper.faults.last
