"""`shipped_up_to_ms` is never a lie: every interleaving of writers, scans, deliveries and losses keeps it true."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kong_plugins.shipper.claims import Claims
from tests.shipper.support import Bench, append, file_log_line, file_log_lines, request_id

MARGIN_MS = 1000


class TestClaims:
    def test_a_scan_counts_once_all_it_found_is_shipped(self) -> None:
        shipped = {"a": 5, "b": 0}
        claims = Claims(margin_ms=10)
        claims.scanned(at_ms=100, targets={"a": 5, "b": 3})
        claims.settle(lambda name, size: shipped[name] >= size)
        assert claims.claimed_ms == 0

        shipped["b"] = 3
        claims.settle(lambda name, size: shipped[name] >= size)
        assert claims.claimed_ms == 90

    def test_newer_scans_do_not_starve_an_older_one(self) -> None:
        claims = Claims(margin_ms=0)
        claims.scanned(at_ms=100, targets={"a": 1})
        claims.scanned(at_ms=200, targets={"a": 2})
        claims.settle(lambda _, size: size <= 1)

        assert claims.claimed_ms == 100

    def test_a_clock_that_goes_back_claims_nothing(self) -> None:
        claims = Claims(margin_ms=0)
        for at_ms, expected in [(100, 100), (50, 0), (99, 0), (101, 101)]:
            claims.scanned(at_ms=at_ms, targets={})
            claims.settle(lambda *_: True)
            assert claims.claimed_ms == expected
            assert claims.clock_went_back == (expected == 0)

    def test_a_withdrawn_claim_needs_a_new_scan(self) -> None:
        claims = Claims(margin_ms=0)
        claims.scanned(at_ms=100, targets={})
        claims.withdraw()
        claims.settle(lambda *_: True)

        assert claims.claimed_ms == 0


class Writers:
    """Kong's workers: they open the live file, and write into what they hold at any later moment."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.held: list[BinaryIO] = []
        self.torn: tuple[Path, bytes] | None = None
        self.written_at_ms: dict[str, int] = {}

    def open(self) -> None:
        self.held.append(self.bench.live.open("ab", buffering=0))

    def _written(self, number: int) -> None:
        self.written_at_ms[request_id(number)] = self.bench.now_ms

    def write(self, *, to_held: bool) -> None:
        number = len(self.written_at_ms) + 1
        if to_held and self.held:
            with self.held.pop(0) as file:
                file.write(file_log_lines([number]))
        else:
            append(self.bench.live, file_log_lines([number]))
        self._written(number)

    def write_in_two(self) -> None:
        """The line is visible in part while the shipper works; it is written when its end is."""
        number = len(self.written_at_ms) + 1
        whole = file_log_line(number) + b"\n"
        with (self.bench.directory / "slow.log").open("ab", buffering=0) as file:
            file.write(whole[:200])
            self.bench.step(after_seconds=0.3)
            file.write(whole[200:])
        self._written(number)


def check_claims(client: redis.Redis, bench: Bench, writers: Writers) -> None:
    """Within the stream: what is claimed by an entry stands in it or before it, and claims only grow."""
    seen: set[str] = set()
    highest_ms = 0
    for _, fields in client.xrange(bench.stream.name):
        lines = fields[b"lines"]
        seen |= {json.loads(line)["id"] for line in lines.split(b"\n")} if lines else set()
        claim_ms = int(fields[b"shipped_up_to_ms"])
        if claim_ms:
            assert claim_ms >= highest_ms
            highest_ms = claim_ms
            owed = {name for name, at in writers.written_at_ms.items() if at < claim_ms + MARGIN_MS}
            assert owed <= seen


class TestTruth:
    def test_a_scan_that_leaves_a_live_file_behind_claims_nothing(self, make_bench: Callable[..., Bench]) -> None:
        bench = make_bench(claim_margin_ms=MARGIN_MS)
        writers = Writers(bench)
        bench.step()
        bench.shipper._full_until = bench.now + 2
        writers.write(to_held=False)
        bench.step()
        bench.shipper.claims.withdraw()  # as every fall-back does
        writers.write(to_held=False)
        for _ in range(4):
            bench.step()
            with redis.Redis.from_url(bench.url) as client:
                check_claims(client, bench, writers)

        assert bench.shipper.claims.claimed_ms > 0

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        moves=st.lists(
            st.sampled_from(["write", "open", "write held", "in two", "step", "wait", "flush", "restart", "full"]),
            max_size=40,
        )
    )
    @example(moves=["full", "write", "step", "write", "step", "wait"])  # a live file is left while others wait
    @example(moves=["open", "write", "step", "write held", "step", "step"])  # a writer holds a renamed file
    def test_holds_in_every_interleaving(self, redis_url: str, moves: list[str]) -> None:
        client = redis.Redis.from_url(redis_url)
        client.flushall()
        with tempfile.TemporaryDirectory() as directory:
            bench = Bench(redis_url, Path(directory), claim_margin_ms=MARGIN_MS)
            writers = Writers(bench)
            for move in moves:
                match move:
                    case "write" | "write held":
                        writers.write(to_held=move == "write held")
                    case "open":
                        writers.open()
                    case "in two":
                        writers.write_in_two()
                    case "step" | "wait":
                        bench.step(after_seconds=0.25 if move == "step" else 3.0)
                    case "flush":
                        client.flushall()
                    case "restart":
                        bench.restart()
                    case "full":
                        bench.shipper._full_until = bench.now + 1
                bench.now_ms += 1
                check_claims(client, bench, writers)
            for _ in range(4):
                bench.step(after_seconds=2.0)
            check_claims(client, bench, writers)
            assert bench.shipper.claims.claimed_ms >= bench.now_ms - 2_000 - MARGIN_MS
            for file in writers.held:
                file.close()
            bench.close()
        client.close()
