"""What an operator may set; every value has a default except where to read and where to send."""

from dataclasses import dataclass
from pathlib import Path

from gateway_contract.kafka import KafkaAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class ShipperSettings:
    """Times in seconds unless the name says ms.

    `max_stream_entries`: no entry is added while the stream holds that many, or while that many of ours are not
    committed. `final_after_seconds`: a segment that has not grown for so long has no writer any more.
    `claim_margin_ms`: how long after its last byte a request's line may take into the spool (`claims`).
    `rotate_bytes`: a live file of that size becomes a segment even while nothing can be shipped, so that the
    disk is given back in pieces. `kafka`: lines go there instead of to Redis, which keeps epochs and positions.
    """

    spool_dir: Path
    redis_url: str
    kafka: KafkaAddress | None = None
    stream_shards: int = 1
    scan_seconds: float = 0.2
    poll_seconds: float = 0.5
    heartbeat_seconds: float = 1.0
    final_after_seconds: float = 60.0
    resend_after_seconds: float = 30.0
    claim_margin_ms: int = 5_000
    max_stream_entries: int = 20_000
    rotate_bytes: int = 64 * 1024 * 1024
    quarantine_bytes: int = 16 * 1024 * 1024
    port: int = 9465
