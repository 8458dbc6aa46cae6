"""Every Redis name, one function each. Prefix `km:1:`.

In a Redis Cluster whatever one script touches must lie in one slot, which the tag in braces decides: an account's
names share a tag, so do a bucket of key records with its marker, and a usage stream with its shippers' names.
"""

from binascii import crc_hqx
from typing import Final
from zlib import crc32

from gateway_contract.modes import Mode

PREFIX = "km:1:"

SLOTS: Final = 16_384
# Key records lie in buckets by the first digits of the hash; each bucket has a marker of its own.
KEY_BUCKETS: Final = tuple(f"{number:03x}" for number in range(4096))
INVALIDATIONS_CHANNEL = PREFIX + "invalidations"
COLLECTOR_GROUP = "collector"


def slot_of(name: str) -> int:
    """Return the slot in which a Redis Cluster keeps this name."""
    start = name.find("{")
    if start >= 0:
        end = name.find("}", start)
        if end > start + 1:
            name = name[start + 1 : end]
    return crc_hqx(name.encode(), 0) % SLOTS


def key_bucket(key_hash: str) -> str:
    return key_hash[:3]


def key_record(key_hash: str) -> str:
    """String (JSON): one key record by the SHA-256 of the key."""
    return f"{PREFIX}{{key:{key_bucket(key_hash)}}}:{key_hash}"


def projection_marker(bucket: str) -> str:
    """String (JSON), written after every full projection, in the slot of the bucket's key records.

    A key record that is missing while this is missing too means "Redis was emptied", not "unknown key": the
    gateway answers 503 then, and the projector rebuilds.
    """
    return f"{PREFIX}{{key:{bucket}}}:projected"


def projection_sweep(bucket: str) -> str:
    """String set while a full projection runs; gone where Redis was emptied meanwhile. In the marker's slot."""
    return f"{PREFIX}{{key:{bucket}}}:sweep"


def account_record(account_id: str) -> str:
    """String (JSON): the account record."""
    return f"{PREFIX}{{{account_id}}}:record"


def account_versions(account_id: str) -> str:
    """Hash: field `account` and one field for each key id, each the newest version that was projected."""
    return f"{PREFIX}{{{account_id}}}:versions"


def window_state(account_id: str, scope: str, window_ms: int, mode: Mode, kind: str) -> str:
    """State of one sliding window. `scope` is a subscription or key id, `kind` the form of the state."""
    return f"{PREFIX}{{{account_id}}}:window:{scope}:{window_ms}:{mode.value}:{kind}"


def period_counters(account_id: str, subscription_id: str, period_start_ms: int, mode: Mode) -> str:
    """Hash of one billing period: see `gateway_contract.counters` for its fields."""
    return f"{PREFIX}{{{account_id}}}:period:{subscription_id}:{period_start_ms}:{mode.value}"


def key_counters(account_id: str, key_id: str, period_start_ms: int) -> str:
    """Hash of one billing period of a key that has a quota share of its own; same fields as the period's."""
    return f"{PREFIX}{{{account_id}}}:key:{key_id}:{period_start_ms}"


def in_flight(account_id: str, product: str, mode: Mode) -> str:
    """Sorted set of calls that were admitted and have not ended, scored by the moment (ms) they are given up at.

    Members are `<decided_at_ms>.<call number>`, which the call's receipt repeats to whoever sees it end.
    """
    return f"{PREFIX}{{{account_id}}}:in_flight:{product}:{mode.value}"


def usage_shard(shipper_id: str, shards: int) -> int:
    """Return the shard (from 0) on which a shipper stays."""
    return crc32(shipper_id.encode()) % shards


def usage_stream(shard: int) -> str:
    """Stream of usage batches."""
    return f"{PREFIX}{{usage:{shard}}}:stream"


def shipper_epoch(shard: int, shipper_id: str) -> str:
    """String a shipper sets when it starts; when it is gone, Redis lost what was shipped."""
    return f"{PREFIX}{{usage:{shard}}}:shipper:{shipper_id}:epoch"


def shipper_positions(shard: int, shipper_id: str) -> str:
    """Hash segment -> end offset up to which the collector has committed. Published from PostgreSQL."""
    return f"{PREFIX}{{usage:{shard}}}:shipper:{shipper_id}:positions"


def shipper_collected(shard: int, shipper_id: str) -> str:
    """String `<epoch>:<number>`: the last message of a shipper on Kafka before which none is missing."""
    return f"{PREFIX}{{usage:{shard}}}:shipper:{shipper_id}:collected"


def ingest_allowance(token_id: str) -> str:
    """String: when the allowance of events that a token may report is full again, in us of Redis time."""
    return f"{PREFIX}ingest:{token_id}:allowance"
