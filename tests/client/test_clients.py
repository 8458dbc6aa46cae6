"""Both clients against a server that fails: every event arrives once, and nothing hides."""

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kong_monetize_client import (
    AsyncClient,
    BufferFullError,
    Client,
    ClosedError,
    DirectoryInUseError,
    EventError,
    FlushTimeoutError,
    Options,
    Rejected,
)
from kong_monetize_client.disk_buffer import DiskBuffer
from tests.client.conftest import DROP_AFTER, DROP_BEFORE, TOKEN, Server

WITHIN_SECONDS = 30
QUICK: dict[str, Any] = {"max_age_seconds": 0.01, "first_pause_seconds": 0.01, "longest_pause_seconds": 0.05}


class InThread:
    """The async client behind the sync one's calls, so that one set of tests holds for both."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        try:
            self._client = self._call(self._make(*arguments, **options))
        except BaseException:
            self._end()
            raise

    def _call(self, awaitable: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(awaitable, self._loop).result(WITHIN_SECONDS)

    def _end(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    @staticmethod
    async def _make(*arguments: Any, **options: Any) -> AsyncClient:
        return AsyncClient(*arguments, **options)

    def __repr__(self) -> str:
        return repr(self._client)

    @property
    def waiting(self) -> int:
        return self._client.waiting

    def report(self, *arguments: Any, **fields: Any) -> str:
        if not self._thread.is_alive():
            raise ClosedError
        return self._call(self._client.report(*arguments, **fields))

    def flush(self, timeout: float = WITHIN_SECONDS) -> None:
        self._call(self._client.flush(timeout))

    def close(self, timeout: float = 10.0) -> int:
        if not self._thread.is_alive():
            return 0
        left = self._call(self._client.close(timeout))
        self._end()
        return left


@pytest.fixture(params=[Client, InThread], ids=["sync", "async"])
def make(request: pytest.FixtureRequest, server: Server) -> Iterator[Callable[..., Any]]:
    clients = []

    def make(url: str = "", **options: Any) -> Any:
        clients.append(
            request.param(url or server.url, TOKEN, source="/shop", options=Options(**(QUICK | options)))
        )
        return clients[-1]

    yield make
    server.gate.set()
    for client in clients:
        client.close(1.0)


def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WITHIN_SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class TestSending:
    def test_what_is_reported_arrives_with_its_id(self, make, server):
        client = make()
        event_id = client.report("sold", subject="acc_1", units={"transactions": 1}, properties={"country": "NO"})
        until(lambda: server.events)
        (event,) = server.events.values()
        assert (event["id"], event["source"], event["type"], event["subject"]) == (
            event_id,
            "/shop",
            "sold",
            "acc_1",
        )
        assert event["data"] == {"units": {"transactions": 1}, "properties": {"country": "NO"}}
        (headers,) = server.headers
        assert headers["authorization"] == f"Bearer {TOKEN}"
        assert headers["content-type"] == "application/cloudevents-batch+json"
        assert headers["content-encoding"] == "gzip"

    def test_events_go_in_batches_of_a_size(self, make, server):
        client = make(max_events=50, max_age_seconds=60.0)
        for number in range(120):
            client.report("sold", subject="acc_1", id=str(number))
        until(lambda: client.waiting == 20)
        assert len(server.events) == 100
        client.flush()
        assert server.ids == [str(number) for number in range(120)]
        assert [len(batch) for batch in server.batches] == [50, 50, 20]

    def test_a_batch_is_bounded_by_bytes_too(self, make, server):
        client = make(max_bytes=2000, max_age_seconds=60.0)
        for number in range(20):
            client.report("sold", subject="acc_1", id=str(number), properties={"text": "x" * 256})
        client.flush()
        assert len(server.events) == 20
        assert max(len(batch) for batch in server.batches) <= 4

    def test_few_events_go_when_the_oldest_is_old_enough(self, make, server):
        client = make(max_age_seconds=0.05)
        client.report("sold", subject="acc_1")
        until(lambda: len(server.events) == 1 and not client.waiting)
        client.report("sold", subject="acc_1")
        until(lambda: len(server.events) == 2)

    def test_many_threads_lose_nothing(self, make, server, tmp_path):
        client = make(directory=tmp_path / "buffer", max_events=100)
        reported: list[str] = []

        def report() -> None:
            reported.extend(client.report("sold", subject="acc_1") for _ in range(100))

        threads = [threading.Thread(target=report) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        client.flush()
        assert sorted(server.ids) == sorted(reported)
        assert sum(map(len, server.batches)) == 800


class TestFailures:
    def test_are_tried_again_with_the_same_events_until_they_are_taken(self, make, server, refuses):
        errors: list[str] = []
        html = (200, {"content-type": "text/html"}, b"<html>a proxy's page</html>")
        server.plan = [
            refuses(503, "ingest_unavailable"),
            DROP_BEFORE,
            DROP_AFTER,
            html,
            (200, {}, b'{"results": []}'),
            (302, {"location": "https://elsewhere.test/"}, b""),
            (404, {}, b"no such thing"),
            refuses(401, "unauthenticated"),
            refuses(500, "internal_error"),
        ]
        client = make(on_error=errors.append)
        ids = [client.report("sold", subject="acc_1") for _ in range(3)]
        client.flush()
        assert server.ids == ids
        assert client.waiting == 0
        assert not server.plan
        assert len(errors) == 9
        assert "503 ingest_unavailable" in errors[0]

    def test_wait_as_long_as_the_server_asks(self, make, server, refuses):
        server.plan = [refuses(429, "too_many_events", retry_after="1")]
        client = make()
        client.report("sold", subject="acc_1")
        started = time.monotonic()
        client.flush()
        assert time.monotonic() - started >= 0.9
        assert len(server.events) == 1

    def test_too_much_at_once_is_sent_in_smaller_parts(self, make, server):
        server.most = 3
        client = make(max_age_seconds=60.0, max_events=40)
        ids = [client.report("sold", subject="acc_1") for _ in range(40)]
        client.flush()
        assert server.ids == ids

    def test_what_is_too_much_for_a_proxy_is_sent_in_smaller_parts_and_never_given_up(self, make, server):
        told: list[Rejected] = []
        server.most_on_the_way = 0
        client = make(max_age_seconds=60.0, max_events=20, on_rejected=told.append)
        ids = [client.report("sold", subject="acc_1") for _ in range(20)]
        until(lambda: len(server.headers) > 6)
        server.most_on_the_way = 3
        client.flush()
        assert server.ids == ids
        assert told == []

    def test_one_event_that_is_refused_whole_holds_up_no_other(self, make, server, refuses):
        told: list[Rejected] = []
        client = make(max_age_seconds=60.0, max_events=2, on_rejected=told.append)
        # the first two, then the first alone
        server.plan = [refuses(422, "validation_failed"), refuses(422, "validation_failed")]
        ids = [client.report("sold", subject="acc_1") for _ in range(2)]
        client.flush()
        assert [(found.event["id"], found.code) for found in told] == [(ids[0], "validation_failed")]
        assert server.ids == ids[1:]

    def test_rejected_events_are_told_and_kept_and_never_sent_again(self, make, server, tmp_path):
        server.reject = {"b": ("unknown_subject", "Its subject is nobody.")}
        told: list[Rejected] = []
        client = make(directory=tmp_path, on_rejected=told.append, max_age_seconds=60.0)
        for event_id in "abc":
            client.report("sold", subject="acc_1", id=event_id)
        client.flush()
        assert server.ids == ["a", "c"]
        assert [(found.event["id"], found.code, found.message) for found in told] == [
            ("b", "unknown_subject", "Its subject is nobody.")
        ]
        client.close()
        (line,) = (tmp_path / "rejected.jsonl").read_text().splitlines()
        assert '"code":"unknown_subject"' in line
        client = make(directory=tmp_path)
        assert client.waiting == 0

    def test_a_callback_that_raises_stops_nothing(self, make, server, refuses):
        def broken(_told: Any) -> None:
            raise RuntimeError("mine")

        server.plan = [refuses(503)]
        server.reject = {"a": ("x", "y")}
        client = make(on_rejected=broken, on_error=broken)
        client.report("sold", subject="acc_1", id="a")
        client.report("sold", subject="acc_1", id="b")
        client.flush()
        assert server.ids == ["b"]


class TestEnds:
    @pytest.mark.parametrize(
        "body",
        [b'{"results": [{"index": 1e999, "result": "accepted", "code": "", "message": ""}]}', b"[" * 100_000],
        ids=["numbers that are none", "nested too deeply"],
    )
    def test_an_answer_that_makes_no_sense_stops_nothing(self, make, server, body):
        server.plan += [(200, {}, body), (400, {}, body)]
        client = make()
        event_id = client.report("sold", subject="acc_1")
        client.flush(WITHIN_SECONDS)
        assert (server.ids, server.plan) == ([event_id], [])

    def test_a_disk_that_cannot_be_read_for_a_while_stops_nothing(self, make, server, tmp_path, monkeypatch):
        failed = threading.Event()
        with monkeypatch.context() as broken:

            def cannot(*_: object, **__: object) -> None:
                failed.set()
                raise OSError(24, "Too many open files")

            broken.setattr(DiskBuffer, "_lines", cannot)
            client = make(directory=tmp_path / "buffer")
            event_id = client.report("sold", subject="acc_1")
            assert failed.wait(WITHIN_SECONDS)
        client.flush(WITHIN_SECONDS)
        assert server.ids == [event_id]

    def test_flush_says_what_is_left_when_it_takes_too_long(self, make, server):
        server.gate.clear()
        client = make()
        client.report("sold", subject="acc_1")
        with pytest.raises(FlushTimeoutError) as late:
            client.flush(0.1)
        assert late.value.left == 1
        server.gate.set()
        client.flush()
        assert len(server.events) == 1

    def test_close_sends_what_waits(self, make, server):
        client = make(max_age_seconds=60.0)
        client.report("sold", subject="acc_1")
        assert client.close() == 0
        assert len(server.events) == 1
        assert client.close() == 0
        with pytest.raises(ClosedError):
            client.report("sold", subject="acc_1")

    def test_what_could_not_be_sent_is_sent_by_the_next(self, make, server, tmp_path):
        client = make("http://127.0.0.1:1", directory=tmp_path)
        ids = [client.report("sold", subject="acc_1") for _ in range(5)]
        assert client.close(0.3) == 5
        client = make(directory=tmp_path)
        assert client.waiting == 5
        ids.append(client.report("sold", subject="acc_1"))
        client.flush()
        assert server.ids == ids

    def test_a_close_in_the_middle_of_a_request_ends_in_time(self, make, server, tmp_path):
        server.gate.clear()
        client = make(directory=tmp_path)
        client.report("sold", subject="acc_1")
        time.sleep(0.05)
        started = time.monotonic()
        assert client.close(0.2) == 1
        assert time.monotonic() - started < 10
        server.gate.set()
        client = make(directory=tmp_path)
        client.flush()
        assert len(server.events) == 1

    def test_a_directory_has_one_client(self, make, tmp_path):
        client = make(directory=tmp_path)
        with pytest.raises(DirectoryInUseError):
            make(directory=tmp_path)
        client.close()

    def test_a_full_buffer_is_said(self, make, server, tmp_path):
        server.gate.clear()
        for options in ({"directory": tmp_path}, {}):
            client = make(max_buffer_bytes=2000, **options)
            with pytest.raises(BufferFullError):  # noqa: PT012 - one of them is the one too many
                for _ in range(100):
                    client.report("sold", subject="acc_1")
            kept = client.waiting
            assert 5 < kept < 20
            server.gate.set()
            client.flush()
            client.report("sold", subject="acc_1")
            server.gate.clear()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_a_forked_child_may_not_report(self, server):
        client = Client(server.url, TOKEN, source="/shop", options=Options(**QUICK))
        child = os.fork()
        if child == 0:
            refused = 1
            with contextlib.suppress(ClosedError):
                client.report("sold", subject="acc_1")
                refused = 0
            os._exit(0 if refused else 1)
        assert os.waitpid(child, 0)[1] == 0
        client.close()
        assert server.ids == []

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_a_forked_child_ends_though_the_sending_thread_was_busy(self, server):
        """It closes the client when it ends, as every process does that has one."""
        client = Client(server.url, TOKEN, source="/shop", options=Options(**QUICK))
        held, done = threading.Event(), threading.Event()

        def hold() -> None:
            with client._changed:
                held.set()
                done.wait(WITHIN_SECONDS)

        holder = threading.Thread(target=hold)
        holder.start()
        assert held.wait(WITHIN_SECONDS)
        child = os.fork()
        if child == 0:
            client.close()
            os._exit(0)
        try:
            until(lambda: os.waitpid(child, os.WNOHANG)[0])
        except AssertionError:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        finally:
            done.set()
            holder.join()
            client.close()


class TestManners:
    def test_the_token_is_shown_nowhere(self, make, server, refuses, caplog, tmp_path):
        caplog.set_level(logging.DEBUG)
        server.plan = [refuses(401, "unauthenticated"), DROP_BEFORE]
        server.reject = {"a": ("x", "y")}
        client = make(directory=tmp_path)
        client.report("sold", subject="acc_1", id="a")
        client.flush()
        assert TOKEN not in repr(client)
        client.close()
        assert TOKEN not in caplog.text
        for path in Path(tmp_path).iterdir():
            assert TOKEN.encode() not in path.read_bytes()

    def test_a_wrong_event_is_refused_where_it_is_reported(self, make):
        client = make()
        with pytest.raises(EventError):
            client.report("sold", subject="")
        assert client.waiting == 0

    @pytest.mark.parametrize("url", ["", "127.0.0.1:8090", "ftp://x", "http://", "http://[::1"])
    def test_an_address_that_is_none_is_refused(self, url):
        with pytest.raises(ValueError, match="address"):
            Client(url, TOKEN, source="/shop")

    @pytest.mark.parametrize("token", ["", "two words", "line\n", "ünicode", "x" * 600])
    def test_a_token_that_is_none_is_refused_and_not_shown(self, token):
        with pytest.raises(ValueError, match="token") as refused:
            Client("http://127.0.0.1:1", token, source="/shop")
        assert not token or token not in str(refused.value)

    @pytest.mark.parametrize(
        "options",
        [
            {"max_events": 0}, {"max_events": 1001}, {"fsync": "sometimes"}, {"max_bytes": 0},
            {"first_pause_seconds": 2.0, "longest_pause_seconds": 1.0},
        ],
    )  # fmt: skip
    def test_options_that_make_no_sense_are_refused(self, options):
        with pytest.raises(ValueError, match="must be"):
            Options(**options)
