"""What is on disk stays, whatever the process or the disk does."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kong_monetize_client import BufferFullError, DirectoryInUseError, disk_buffer
from kong_monetize_client.disk_buffer import DiskBuffer

LARGE = 10**9


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., DiskBuffer]:
    def make(**options) -> DiskBuffer:
        return DiskBuffer(tmp_path / "buffer", **{"max_bytes": LARGE, "fsync": "never", **options})

    return make


def lines(buffer: DiskBuffer, most: int = 10**6) -> list[bytes]:
    return [entry.line for entry in buffer.peek(max_events=most, max_bytes=LARGE)]


def segments(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "buffer").glob("*.events"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
class TestForked:
    """A process that was forked from one with a client lives on, and does nothing with the buffer."""

    @pytest.fixture
    def fork_waiting(self):
        """Forks a process that ends with the test."""
        reading, writing = os.pipe()
        told, telling = os.pipe()
        children = []

        def fork() -> None:
            """Return once the other process runs."""
            if child := os.fork():
                children.append(child)
                os.read(told, 1)
                return
            os.close(writing)
            os.write(telling, b"1")
            os.read(reading, 1)
            os._exit(0)

        yield fork
        os.close(writing)
        for child in children:
            os.waitpid(child, 0)
        for descriptor in (reading, told, telling):
            os.close(descriptor)

    def test_does_not_hold_a_directory_that_was_left(self, opened, fork_waiting):
        buffer = opened()
        buffer.append(b"1")
        fork_waiting()
        with pytest.raises(DirectoryInUseError):
            opened()
        buffer.close()
        assert lines(opened()) == [b"1"]

    def test_does_not_hold_the_directory_of_a_process_that_died(self, opened, fork_waiting):
        dying = os.fork()
        if dying == 0:
            buffer = opened()
            buffer.append(b"1")
            fork_waiting()
            os._exit(0)
        os.waitpid(dying, 0)
        assert lines(opened()) == [b"1"]


class TestKeeping:
    def test_in_order_over_restarts(self, opened):
        for round_number in range(4):
            buffer = opened()
            assert buffer.count == round_number
            buffer.append(b'{"n": %d}' % round_number)
            assert lines(buffer) == [b'{"n": %d}' % number for number in range(round_number + 1)]
            buffer.close()

    def test_what_was_dropped_does_not_come_back(self, opened, tmp_path):
        buffer = opened()
        for number in range(10):
            buffer.append(b"%d" % number)
        buffer.drop(buffer.peek(max_events=7, max_bytes=LARGE))
        assert lines(buffer) == [b"7", b"8", b"9"]
        buffer.close()
        buffer = opened()
        assert (buffer.count, lines(buffer)) == (3, [b"7", b"8", b"9"])
        buffer.drop(buffer.peek(max_events=7, max_bytes=LARGE))
        buffer.append(b"10")
        assert lines(buffer) == [b"10"]
        buffer.close()
        assert len(segments(tmp_path)) <= 2

    def test_without_the_note_of_what_was_sent_it_comes_again(self, opened, tmp_path):
        for spoil in (
            Path.unlink,
            lambda path: path.write_bytes(b"00000000 1 1\n"),
            lambda path: path.write_bytes(b""),
        ):
            buffer = opened()
            buffer.append(b"event")
            buffer.append(b"event")
            before = buffer.count
            buffer.drop(buffer.peek(max_events=1, max_bytes=LARGE))
            buffer.close()
            spoil(tmp_path / "buffer" / "sent")
            buffer = opened()
            assert buffer.count == before
            buffer.drop(buffer.peek(max_events=100, max_bytes=LARGE))
            buffer.close()

    def test_a_page_is_bounded_by_number_and_bytes_but_never_empty(self, opened):
        buffer = opened()
        for _ in range(10):
            buffer.append(b"x" * 99)
        assert len(buffer.peek(max_events=3, max_bytes=LARGE)) == 3
        assert len(buffer.peek(max_events=10, max_bytes=450)) == 4
        assert len(buffer.peek(max_events=10, max_bytes=1)) == 1
        buffer.close()

    def test_segments_are_begun_read_over_and_deleted(self, opened, tmp_path, monkeypatch):
        monkeypatch.setattr(disk_buffer, "SEGMENT_BYTES", 300)
        monkeypatch.setattr(disk_buffer, "READ_BYTES", 64)
        monkeypatch.setattr(disk_buffer, "WORTH_LEAVING_BYTES", 100)
        buffer = opened()
        expected = [b"%04d" % number * 10 for number in range(60)]
        for line in expected:
            buffer.append(line)
        assert len(segments(tmp_path)) > 5
        found = []
        while page := buffer.peek(max_events=7, max_bytes=LARGE):
            found += [entry.line for entry in page]
            buffer.drop(page)
        assert found == expected
        assert len(segments(tmp_path)) == 1
        buffer.close()

    @settings(max_examples=40, deadline=None)
    @given(steps=st.lists(st.sampled_from(["add", "add", "add", "drop", "reopen", "kill", "tear"]), max_size=60))
    def test_any_history_loses_nothing_and_keeps_the_order(self, tmp_path_factory, steps):
        directory = tmp_path_factory.mktemp("history") / "buffer"
        make = lambda: DiskBuffer(directory, max_bytes=LARGE, fsync="never")  # noqa: E731 - a word for it
        buffer, expected, number = make(), [], 0
        for step in steps:
            if step == "add":
                number += 1
                buffer.append(b"event %d" % number)
                expected.append(b"event %d" % number)
            elif step == "drop":
                page = buffer.peek(max_events=3, max_bytes=LARGE)
                buffer.drop(page)
                expected = expected[len(page) :]
            else:
                if step == "tear":  # the last write of a killed process, half done
                    os.write(buffer._write_fd, b'0badc0de {"half')
                buffer.close()
                buffer = make()
            assert buffer.count == len(expected)
            assert lines(buffer) == expected
        buffer.close()


class TestTrouble:
    def test_a_directory_has_one_client(self, opened):
        buffer = opened()
        with pytest.raises(DirectoryInUseError):
            opened()
        buffer.close()
        opened().close()

    def test_nobody_else_may_read_it(self, opened, tmp_path):
        buffer = opened()
        buffer.keep_rejected([b"{}"])
        assert (tmp_path / "buffer").stat().st_mode & 0o77 == 0
        assert all(path.stat().st_mode & 0o77 == 0 for path in segments(tmp_path))
        assert (tmp_path / "buffer" / "rejected.jsonl").stat().st_mode & 0o77 == 0
        buffer.close()

    def test_full_is_said_and_ends_when_something_was_sent(self, opened):
        buffer = opened(max_bytes=400_000)
        for _ in range(39):
            buffer.append(b"x" * 10_000)
        with pytest.raises(BufferFullError):
            buffer.append(b"x" * 10_000)
        assert buffer.count == 39
        buffer.drop(buffer.peek(max_events=1000, max_bytes=LARGE))
        buffer.append(b"x" * 10_000)
        assert buffer.count == 1
        buffer.close()

    def test_rejected_events_count_as_what_is_full(self, opened, tmp_path):
        buffer = opened(max_bytes=2000)
        buffer.keep_rejected([b"x" * 1990])
        with pytest.raises(BufferFullError) as full:
            buffer.append(b"event")
        assert "rejected.jsonl" in str(full.value)
        (tmp_path / "buffer" / "rejected.jsonl").unlink()
        buffer.keep_rejected([b"y"])
        buffer.append(b"event")
        buffer.close()

    def test_a_damaged_line_is_passed_over_and_told(self, opened, tmp_path, caplog):
        buffer = opened()
        for number in range(3):
            buffer.append(b"event %d" % number)
        buffer.close()
        (path,) = segments(tmp_path)
        path.write_bytes(path.read_bytes().replace(b"event 1", b"event X"))
        buffer = opened()
        assert (buffer.count, lines(buffer)) == (2, [b"event 0", b"event 2"])
        assert "1 damaged" in caplog.text
        buffer.close()

    def test_a_disk_that_takes_half_a_line_keeps_none_of_it(self, opened, monkeypatch):
        buffer = opened()
        buffer.append(b"before")
        real = os.write
        taken = iter([5])

        def full(descriptor: int, data: bytes) -> int:
            if (some := next(taken, None)) is not None:
                return real(descriptor, bytes(data)[:some])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(disk_buffer.os, "write", full)
        with pytest.raises(BufferFullError) as refused:
            buffer.append(b"half")
        assert "No space left" in str(refused.value)
        monkeypatch.undo()
        buffer.append(b"after")
        assert lines(buffer) == [b"before", b"after"]
        buffer.close()

    def test_a_torn_line_that_cannot_be_taken_back_spoils_no_other(self, opened, monkeypatch):
        buffer = opened()
        buffer.append(b"before")
        real = os.write

        def fails(descriptor: int, data: bytes) -> int:
            real(descriptor, bytes(data)[:5])
            raise OSError(5, "Input/output error")

        def cannot(_descriptor: int, _length: int) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as broken:
            broken.setattr(disk_buffer.os, "write", fails)
            broken.setattr(disk_buffer.os, "ftruncate", cannot)
            with pytest.raises(BufferFullError):
                buffer.append(b"half")
        buffer.append(b"after")
        assert lines(buffer) == [b"before", b"after"]
        buffer.close()

    def test_a_segment_that_cannot_be_deleted_holds_up_nothing(self, opened, monkeypatch, tmp_path):
        opened().close()
        buffer = opened()
        buffer.append(b"event")
        (entry,) = buffer.peek(max_events=9, max_bytes=LARGE)

        def cannot(_path: Path, **_options: bool) -> None:
            raise OSError(30, "Read-only file system")

        with monkeypatch.context() as broken:
            broken.setattr(Path, "unlink", cannot)
            buffer.drop([entry])
        assert (buffer.count, len(segments(tmp_path))) == (0, 2)
        buffer.drop([entry])
        assert len(segments(tmp_path)) == 1
        buffer.close()

    def test_a_new_segment_that_fails_once_is_made_the_next_time(self, opened, monkeypatch):
        buffer = opened(fsync="always")
        buffer.append(b"before")
        monkeypatch.setattr(disk_buffer, "SEGMENT_BYTES", 1)

        def cannot(_directory: Path) -> None:
            raise OSError(24, "Too many open files")

        with monkeypatch.context() as broken:
            broken.setattr(disk_buffer, "_sync_directory", cannot)
            with pytest.raises(BufferFullError):
                buffer.append(b"refused")
        buffer.append(b"after")
        assert lines(buffer) == [b"before", b"after"]
        buffer.close()

    def test_rejected_events_are_written_whole_or_not_at_all(self, opened, monkeypatch, tmp_path):
        buffer = opened()
        buffer.keep_rejected([b"first"])
        real = os.write
        taken = iter([5])

        def full(descriptor: int, data: bytes) -> int:
            if (some := next(taken, None)) is not None:
                return real(descriptor, bytes(data)[:some])
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as broken:
            broken.setattr(disk_buffer.os, "write", full)
            with pytest.raises(OSError, match="No space"):
                buffer.keep_rejected([b"second"])
        buffer.keep_rejected([b"second"])
        assert (tmp_path / "buffer" / "rejected.jsonl").read_bytes() == b"first\nsecond\n"
        buffer.close()

    def test_always_syncs_each_event(self, opened, monkeypatch):
        synced = []
        monkeypatch.setattr(disk_buffer.os, "fsync", synced.append)
        buffer = opened(fsync="always")
        before = len(synced)
        for _ in range(3):
            buffer.append(b"event")
        assert len(synced) == before + 3
        buffer.close()
