"""The caller's identity from km-key-auth to km-plan-limit: inside Kong's memory, never in a header.

What passes is the key's SHA-256: it opens nothing, and each worker finds its own records by it.
"""

from typing import Any

from kong_plugins.parts.kong_request import plain

IDENTITY = "km_key_hash"
_HASH_LENGTH = 64


def share_identity(kong: Any, key_hash: str) -> None:
    kong.ctx.shared.set(IDENTITY, key_hash)


def shared_identity(kong: Any) -> str | None:
    """Return the identified key's hash, or None where no km-key-auth ran before."""
    value = plain(kong.ctx.shared.get(IDENTITY))
    return value if isinstance(value, str) and len(value) == _HASH_LENGTH else None
