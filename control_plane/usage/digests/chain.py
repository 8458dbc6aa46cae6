"""The chain of an account's digests. Pure.

A digest is the SHA-256 of a canonical text, which names the digest before it: whoever keeps one of them has all
earlier ones fixed, too.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

HEADING = "km-usage-digest-1"
NO_DIGEST = "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """What is sealed of an account's hour. `root` and `previous` are 64 hex digits."""

    account_id: str
    sequence: int
    hour: datetime
    revision: int
    events: int
    root: str
    previous: str


def encode_digest(digest: Digest) -> str:
    """Return the canonical text: a heading and seven lines `name=value`, each ended by a line feed."""
    hour = digest.hour.astimezone(UTC).strftime("%Y-%m-%dT%H:00:00Z")
    return (
        f"{HEADING}\naccount={digest.account_id}\nsequence={digest.sequence}\nhour={hour}\n"
        f"revision={digest.revision}\nevents={digest.events}\nroot={digest.root}\nprevious={digest.previous}\n"
    )


def hash_digest(digest: Digest) -> str:
    """Return the SHA-256 of the canonical text as 64 hex digits."""
    return sha256(encode_digest(digest).encode()).hexdigest()
