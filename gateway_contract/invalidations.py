"""Messages on `redis_names.INVALIDATIONS_CHANNEL`: which record was just written anew.

    key:<SHA-256 of the key>      the key record changed
    account:<account id>          the account record changed

A speed-up for caches, never the guarantee: a message may get lost, and the limit script compares versions at every
call. Readers ignore messages whose kind they do not know.
"""

KEY_KIND = "key"
ACCOUNT_KIND = "account"


def key_invalidation(key_hash: str) -> str:
    return f"{KEY_KIND}:{key_hash}"


def account_invalidation(account_id: str) -> str:
    return f"{ACCOUNT_KIND}:{account_id}"


def parse_invalidation(text: str) -> tuple[str, str] | None:
    """Return (kind, hash or id), or None for a message of another kind."""
    kind, separator, name = text.partition(":")
    return (kind, name) if separator and name and kind in {KEY_KIND, ACCOUNT_KIND} else None
