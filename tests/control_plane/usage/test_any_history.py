"""Whatever is repeated, reordered, late, lost or cut off on the way: the rollup ends as a plain count does.

One example is one spool with random calls, shipped in pieces in any order and more than once, through collectors
that die after any of their steps, a Redis that forgets everything, and aggregators that die before they commit.
"""

from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gateway_contract.redis_names import usage_stream
from tests.control_plane.usage.histories import EXAMPLES, HOURS_AGO, KINDS, History, expected, rolled_up

actions = st.one_of(
    st.tuples(
        st.just("calls"), st.integers(1, 6), st.integers(0, 2), st.sampled_from(HOURS_AGO), st.sampled_from(KINDS)
    ),
    st.tuples(st.just("repeat"), st.integers(0, 50)),
    st.tuples(st.just("ship"), st.integers(1, 3)),
    st.tuples(st.just("ship ahead"), st.integers(1, 3)),
    st.tuples(st.just("ship again")),
    st.tuples(st.just("collect")),
    st.tuples(st.just("collector dies"), st.integers(0, 4)),
    st.tuples(st.just("redis forgets")),
    st.tuples(st.just("redis loses the oldest")),
    st.tuples(st.just("aggregate")),
    st.tuples(st.just("aggregator dies")),
)


# one account and two paths: mostly replays, each delivery counted before the next comes, in any order of time
REPLAY_KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"replayed": "true"},
    {"replayed": "true", "units": 3, "tokens": 7},
    {"replayed": "true", "status": 503},
    {"replayed": "true", "key": "key_2"},
    {"replayed": "true", "path": "/weather/v1/forecast"},
)
replays = st.tuples(
    st.integers(1, 2),
    st.sampled_from((0, 1, 5, 22, 23, 24, 25, 26, 46, 47, 48, 49, 72)),
    st.integers(0, 59),
    st.sampled_from(REPLAY_KINDS),
)


class TestAnyHistory:
    @settings(
        max_examples=18,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        # shrinking replays hundreds of histories; the actions of a failing one are short enough to read
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
    )
    @given(history=st.lists(actions, min_size=3, max_size=14))
    async def test_ends_as_a_plain_count(self, world, history):
        played = History(world, next(EXAMPLES))
        for name, *arguments in [("calls", 4, 0, 0, {}), *history]:
            await played.play("calls_" if name == "calls" else name, *arguments)
        await played.finish()
        assert await rolled_up(world, played.accounts) == expected(played.calls)
        assert await world.redis.xlen(usage_stream(0)) == 0

    @settings(
        max_examples=10,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
    )
    @given(deliveries=st.lists(st.lists(replays, min_size=1, max_size=4), min_size=2, max_size=4))
    async def test_of_replays_ends_as_a_plain_count(self, world, deliveries):
        played = History(world, next(EXAMPLES))
        for batches in deliveries:
            await played.deliver(*batches)
        assert await rolled_up(world, played.accounts) == expected(played.calls)
