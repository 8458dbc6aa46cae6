"""Merkle trees as RFC 6962 (section 2.1) has them. Pure.

A leaf's hash comes from `leaf.hash_leaf`; a node is SHA-256(0x01 || left || right); the empty tree is SHA-256 of
nothing. Of n > 1 leaves the left subtree holds the largest power of two below n. So complete runs of 2^k leaves,
counted from the first, are subtrees: a tree of any size is made run by run.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256

EMPTY_ROOT = sha256(b"").digest()


def hash_node(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Return the root over leaf hashes, or over roots of complete runs with the last run's root behind them."""
    if not hashes:
        return EMPTY_ROOT
    level = list(hashes)
    while len(level) > 1:
        # the odd one out moves up alone, which is where RFC 6962 puts it
        paired = [hash_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(level) & ~1 :]
    return level[0]


def path_of(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """Return the audit path of one of the hashes, from the bottom up.

    Raises:
        IndexError: there is no such hash.
    """
    if not 0 <= index < len(hashes):
        raise IndexError(index)
    path, level = [], list(hashes)
    while len(level) > 1:
        beside = index ^ 1
        if beside < len(level):
            path.append(level[beside])
        paired = [hash_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(level) & ~1 :]
        index //= 2
    return path


def root_by_path(leaf_hash: bytes, *, index: int, size: int, path: Iterable[bytes]) -> bytes | None:
    """Return the root to which a path leads, or None where the path cannot be one of a tree of this size."""
    if not 0 <= index < size:
        return None
    found, position, last = leaf_hash, index, size - 1
    for beside in path:
        if last == 0:
            return None
        if position & 1 or position == last:
            found = hash_node(beside, found)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            found = hash_node(found, beside)
        position, last = position >> 1, last >> 1
    return found if last == 0 else None
