"""A node of Redis that answers but writes nothing: too few replicas, a snapshot that failed, a read-only copy.

A revocation cannot be written there either, so what it says of records is what was true when it stopped writing.
"""

from gateway_contract.redis_names import account_versions
from kong_plugins.parts.redis_connection import encode_command

PROBE_SECONDS = 1.0


class NodeWrites:
    """What a worker has seen of one node's writing, in monotonic seconds.

    `scripts_refused_since`: limit scripts were refused from then on and none was run to its end. The same in
    `probes_refused_since` for those who write nothing themselves; the last of them asked at `probed_at`.
    """

    __slots__ = ("probed_at", "probes_refused_since", "scripts_refused_since")

    def __init__(self) -> None:
        self.scripts_refused_since: float | None = None
        self.probes_refused_since: float | None = None
        self.probed_at = float("-inf")


def build_probe(account_id: str) -> bytes:
    """Return an encoded command that Redis takes for a write, in the account's slot; it changes nothing."""
    return encode_command("HDEL", account_versions(account_id), "")
