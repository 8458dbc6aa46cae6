"""Committed positions as shippers find them in Redis, whatever they ship through."""

from collections.abc import Collection, Mapping
from typing import Any

from control_plane.foundation.redis import RedisClient
from control_plane.usage.collect.entries import SegmentKey
from gateway_contract.redis_names import shipper_positions, usage_shard


async def publish_positions(redis: RedisClient, positions: Mapping[SegmentKey, int], *, shards: int) -> None:
    """Publish positions of segments; of shippers on any of the `shards`. Idempotent."""
    by_shipper: dict[str, dict[Any, Any]] = {}
    for key, end in positions.items():
        if key.segment:
            by_shipper.setdefault(key.shipper_id, {})[key.segment] = end
    if by_shipper:
        async with redis.pipeline(transaction=False) as pipeline:
            for shipper_id, ends in by_shipper.items():
                name = shipper_positions(usage_shard(shipper_id, shards), shipper_id)
                pipeline.hset(name, mapping=ends)
            await pipeline.execute()


async def forget_positions(redis: RedisClient, segments: Collection[SegmentKey], *, shards: int) -> None:
    """Publish positions of these segments no longer. Idempotent."""
    if segments:
        async with redis.pipeline(transaction=False) as pipeline:
            for key in segments:
                pipeline.hdel(shipper_positions(usage_shard(key.shipper_id, shards), key.shipper_id), key.segment)
            await pipeline.execute()
