"""Every Redis name, one function each. Prefix `km:1:`; the `{account}` tag keeps an account in one slot."""

from gateway_contract.modes import Mode

PREFIX = "km:1:"

# Written after every full projection. A key record that is missing while this is missing too means
# "Redis was emptied", not "unknown key": the gateway answers 503 then, and the projector rebuilds.
PROJECTION_MARKER = PREFIX + "projection"
# Set while a full projection runs and gone when Redis was emptied meanwhile. Tagged into the marker's slot.
PROJECTION_SWEEP = f"{{{PROJECTION_MARKER}}}:sweep"
INVALIDATIONS_CHANNEL = PREFIX + "invalidations"
COLLECTOR_GROUP = "collector"


def key_record(key_hash: str) -> str:
    """String (JSON): one key record by the SHA-256 of the key."""
    return f"{PREFIX}key:{key_hash}"


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


def usage_stream(shard: int) -> str:
    """Stream of usage batches; a shipper stays on one shard."""
    return f"{PREFIX}usage:{shard}"


def shipper_epoch(shipper_id: str) -> str:
    """String a shipper sets when it starts; when it is gone, Redis lost what was shipped."""
    return f"{PREFIX}shipper:{shipper_id}:epoch"


def shipper_positions(shipper_id: str) -> str:
    """Hash segment -> end offset up to which the collector has committed. Published from PostgreSQL."""
    return f"{PREFIX}shipper:{shipper_id}:positions"
