"""Leaves and trees in the byte forms that customers check against."""

import json
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.usage.digests.chain import Digest, encode_digest, hash_digest
from control_plane.usage.digests.leaf import Leaf, LeafError, decode_leaf, encode_leaf, hash_leaf
from control_plane.usage.digests.merkle import path_of, root_by_path, root_of

GOLDEN = json.loads((Path(__file__).parent / "data" / "golden.json").read_text())
hashes = st.lists(st.binary(min_size=1, max_size=4).map(lambda text: sha256(text).digest()), max_size=70)


def plain_root(leaves):
    """RFC 6962, 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + plain_root(leaves[:k]) + plain_root(leaves[k:])).digest()


def plain_path(index, leaves):
    """RFC 6962, 2.1.1, word for word."""
    if len(leaves) <= 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if index < k:
        return [*plain_path(index, leaves[:k]), plain_root(leaves[k:])]
    return [*plain_path(index - k, leaves[k:]), plain_root(leaves[:k])]


def a_leaf(vector):
    return Leaf(**{**vector["leaf"], "flags": tuple(vector["leaf"]["flags"])})


class TestLeaf:
    @pytest.mark.parametrize("vector", GOLDEN["leaves"], ids=lambda vector: vector["leaf"]["event_id"])
    def test_has_the_known_form_and_hash(self, vector):
        leaf = a_leaf(vector)
        assert encode_leaf(leaf) == vector["text"]
        assert hash_leaf(vector["text"]).hex() == vector["sha256"]
        assert decode_leaf(vector["text"]) == leaf

    @pytest.mark.parametrize(
        "change",
        [
            lambda text: text.replace("km-usage-leaf-1", "km-usage-leaf-2"),
            lambda text: text + "more=1\n",
            lambda text: text.replace("units=", "Units="),
            lambda text: text.replace("units=", "units=+"),
            lambda text: text.replace("status=200", "status=0200"),
            lambda text: text.rstrip("\n"),
            lambda _text: "",
        ],
    )
    def test_is_read_in_its_one_form_only(self, change):
        with pytest.raises(LeafError):
            decode_leaf(change(GOLDEN["leaves"][0]["text"]))

    @given(st.text(alphabet="\\\n\rnr a,:=é"))
    def test_keeps_any_text_apart(self, text):
        leaf = Leaf(**{**GOLDEN["leaves"][0]["leaf"], "endpoint": text, "flags": ()})
        assert decode_leaf(encode_leaf(leaf)) == leaf


class TestTree:
    @pytest.mark.parametrize("vector", GOLDEN["trees"], ids=lambda vector: str(vector["size"]))
    def test_has_the_known_root(self, vector):
        leaves = [hash_leaf(f"leaf {number}") for number in range(vector["size"])]
        assert root_of(leaves).hex() == vector["root"]

    @given(hashes)
    def test_is_that_of_rfc_6962(self, leaves):
        assert root_of(leaves) == plain_root(leaves)
        for index in range(len(leaves)):
            assert path_of(leaves, index) == plain_path(index, leaves)

    @given(hashes, st.integers(0, 5))
    def test_is_the_same_made_run_by_run(self, leaves, power):
        size = 2**power
        runs = [root_of(leaves[start : start + size]) for start in range(0, len(leaves), size)]
        assert root_of(runs) == root_of(leaves)

    @given(hashes.filter(bool), st.data())
    def test_is_reached_by_the_path_of_each_leaf_and_by_no_other(self, leaves, data):
        index = data.draw(st.integers(0, len(leaves) - 1))
        path, root = path_of(leaves, index), root_of(leaves)
        assert root_by_path(leaves[index], index=index, size=len(leaves), path=path) == root
        assert root_by_path(b"x" * 32, index=index, size=len(leaves), path=path) != root
        assert root_by_path(leaves[index], index=index, size=len(leaves), path=[*path, b"x" * 32]) != root
        if path:
            assert root_by_path(leaves[index], index=index, size=len(leaves), path=path[:-1]) != root
        assert root_by_path(leaves[index], index=len(leaves), size=len(leaves), path=path) is None


class TestChain:
    @pytest.mark.parametrize("vector", GOLDEN["digests"], ids=lambda vector: str(vector["digest"]["sequence"]))
    def test_has_the_known_form_and_hash(self, vector):
        from datetime import datetime

        fields = {**vector["digest"], "hour": datetime.fromisoformat(vector["digest"]["hour"])}
        digest = Digest(**fields)
        assert encode_digest(digest) == vector["text"]
        assert hash_digest(digest) == vector["sha256"]
