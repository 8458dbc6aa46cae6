"""How many events a token may report: shared by processes, and kept by each while Redis is away."""

import asyncio

from control_plane.foundation.redis import create_redis
from control_plane.usage.ingest.rate_limit import LEFT_ALONE_SECONDS, RateLimit, RateLimiter

LIMIT = RateLimit(events_per_second=1, burst_events=1000)  # a slow test finds a handful more, never hundreds


class TestShared:
    async def test_processes_share_a_tokens_allowance_and_tokens_do_not(self, redis_url):
        clients = [create_redis(redis_url) for _ in range(2)]
        one, other = (RateLimiter(client, LIMIT) for client in clients)
        try:
            taken = await asyncio.gather(
                *(limiter.take("tok_1", 90) for limiter in (one, other) for _ in range(10))
            )
            assert sum(found.allowed for found in taken) == 11
            refused = await other.take("tok_1", 500)
            assert not refused.allowed
            assert 0 <= refused.left < 500
            assert 300 < refused.wait_seconds <= 490
            assert (await other.take("tok_2", 1000)).left == 0
        finally:
            for client in clients:
                await client.aclose()

    async def test_a_refused_request_takes_nothing(self, redis_url):
        client = create_redis(redis_url)
        limiter = RateLimiter(client, LIMIT)
        try:
            assert not (await limiter.take("tok_1", 1001)).allowed
            assert (await limiter.take("tok_1", 1000)).allowed
        finally:
            await client.aclose()

    async def test_what_is_left_of_it_goes_away_when_it_is_full_again(self, redis_url):
        client = create_redis(redis_url)
        try:
            await RateLimiter(client, RateLimit(1000, 1000)).take("tok_1", 500)
            (name,) = await client.keys("km:1:ingest:*")
            assert 0 < await client.pttl(name) <= 1500
            await client.script_flush()
            assert (await RateLimiter(client, LIMIT).take("tok_2", 1)).allowed
        finally:
            await client.aclose()

    async def test_a_redis_that_forgot_the_script_is_given_it_again(self, redis_url):
        client = create_redis(redis_url)
        limiter = RateLimiter(client, LIMIT)
        try:
            await limiter.take("tok_1", 600)
            await client.script_flush()
            assert not (await limiter.take("tok_1", 600)).allowed
        finally:
            await client.aclose()

    async def test_no_limit_asks_nobody(self):
        client = create_redis("redis://127.0.0.1:1")
        assert await RateLimiter(client, RateLimit(0, 1000)).take("tok_1", 10**6) is None
        await client.aclose()


class TestWithoutRedis:
    async def test_the_process_goes_by_itself_and_asks_again_later(self, own_valkey):
        valkey = own_valkey()
        client = create_redis(valkey.url, timeout_seconds=0.5)
        now = 100.0
        limiter = RateLimiter(client, RateLimit(10, 1000), monotonic=lambda: now)
        try:
            assert (await limiter.take("tok_1", 900)).left in range(100, 1000)
            valkey.stop()
            assert (await limiter.take("tok_1", 900)).left == 100
            refused = await limiter.take("tok_1", 900)
            assert (refused.allowed, refused.left, round(refused.wait_seconds)) == (False, 100, 80)
            assert (await limiter.take("tok_2", 900)).allowed
            now += LEFT_ALONE_SECONDS
            assert (await limiter.take("tok_1", 120)).left == 0
        finally:
            await client.aclose()
