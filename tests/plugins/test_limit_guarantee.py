"""What sliding windows promise: never more than the limit in any interval, nobody refused who paces himself."""

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway_contract.records import Window
from kong_plugins.parts.limit_script import ADMITTED
from tests.plugins.fakes import SECRET, grant
from tests.plugins.limits import TIMED_SCRIPT

ROOT = Path(__file__).parents[2]
SKEWS_SECONDS = (0.0, 5_000.0, -86_400.0)
HAMMER_SECONDS = 2.0
# some refuse all the time, some open again and again while they are hammered, alone and together
HAMMERED = [
    (Window(5, 50),),
    (Window(40, 300),),
    (Window(100, 1000),),
    (Window(101, 250),),
    (Window(250, 1000),),
    (Window(30, 100), Window(120, 900)),
    (Window(700, 3_600_000),),
]


def most_in_any_interval(times_us: list[int], length_us: int) -> int:
    """The most calls in any half-open interval of that length, by looking at each that begins at a call."""
    times = sorted(times_us)
    return max(sum(1 for other in times[i:] if other - time < length_us) for i, time in enumerate(times))


def hammer(url: str, texts: list[str]) -> tuple[dict[str, list[int]], Counter[str]]:
    """Call with all keys from several processes at once; return when each call was admitted, by Redis' clock."""
    processes = [
        subprocess.Popen([sys.executable, "-m", "tests.plugins.hammer"], stdin=-1, stdout=-1, text=True, cwd=ROOT)
        for _ in SKEWS_SECONDS
    ]
    common = {"url": url, "secret": SECRET, "texts": texts, "seconds": HAMMER_SECONDS}
    for process, skew in zip(processes, SKEWS_SECONDS, strict=True):
        process.stdin.write(json.dumps({**common, "skew_seconds": skew}) + "\n")
        process.stdin.flush()
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.close()
    admitted: dict[str, list[int]] = {text: [] for text in texts}
    codes: Counter[str] = Counter()
    for process in processes:
        said = json.loads(process.stdout.read())
        process.stdout.close()
        assert process.wait(timeout=30) == 0
        codes.update(said["codes"])
        assert said["codes"]["served"]
        for text, times in said["admitted"].items():
            admitted[text] += times
    return admitted, codes


class TestSeveralProcessesWithWrongClocks:
    def test_never_admit_more_than_the_limit_in_any_interval(self, redis_url, project):
        accounts = [
            project(account=f"acc_h{number}", grant=grant(windows=windows, quota=None))
            for number, windows in enumerate(HAMMERED)
        ]
        admitted, codes = hammer(redis_url, [account.text for account in accounts])
        assert set(codes) == {"served", "rate_limited"}
        for account, windows in zip(accounts, HAMMERED, strict=True):
            times = admitted[account.text]
            assert account.counters()["calls"] == len(times)
            for window in windows:
                assert most_in_any_interval(times, window.window_ms * 1000) <= window.limit

    def test_could_be_found_out(self):
        assert most_in_any_interval([0, 1, 2, 10], 3) == 3
        assert most_in_any_interval([0, 3], 3) == 1


class TestEvenPace:
    @pytest.mark.parametrize("window_ms", [1000, 60_000, 3_600_000])
    @pytest.mark.parametrize("limit", [1, 2, 3, 10, 59, 60, 61, 99, 100, 101, 120, 121, 500, 1000, 10_000])
    def test_at_95_percent_is_never_refused(self, timed, client, limit, window_ms):
        caller = timed(windows=(Window(limit, window_ms),), quota=None)
        pause_us = window_ms * 1000 / (limit * 0.95)
        moments = [math.ceil(number * pause_us) for number in range(limit * 6 // 5 + 3)]
        assert all(admits_in_batches(client, caller, moments))


def admits_in_batches(client, caller, moments: list[int]) -> list[bool]:
    sha = client.script_load(TIMED_SCRIPT)
    keys, arguments = caller.question.keys, caller.question.arguments
    admitted = []
    for batch in (moments[start : start + 500] for start in range(0, len(moments), 500)):
        pipeline = client.pipeline(transaction=False)
        for at_us in batch:
            clock = divmod(caller.start_us + at_us, 1_000_000)
            pipeline.evalsha(sha, len(keys), *keys, *arguments, *clock)
        admitted += [answer[0] == ADMITTED for answer in pipeline.execute()]
    return admitted


class TestClockThatStepsBackAndForth:
    @given(
        limit=st.integers(0, 140),
        window_ms=st.sampled_from([10_000, 17_001, 60_000]),
        moves=st.lists(
            st.tuples(
                st.one_of(st.integers(0, 2_000_000), st.integers(-90_000_000, 90_000_000)), st.integers(1, 60)
            ),
            min_size=1,
            max_size=25,
        ),
    )
    @settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_never_admits_more_while_its_steps_forward_add_up_to_a_window(self, timed, limit, window_ms, moves):
        """Time that the clock took back does not count: whatever passed, passed by steps forward."""
        caller = timed(windows=(Window(limit, window_ms),), quota=None)
        admitted: list[int] = []
        clock_us = passed_us = 0
        for move, repeat in moves:
            clock_us += move
            passed_us += max(0, move)
            admitted += [passed_us for _ in range(repeat) if caller.admits(clock_us)]
        assert not admitted or most_in_any_interval(admitted, window_ms * 1000) <= limit
