"""The search for readable keys finds them wherever they may lie."""

import pytest

from devstack.soak.key_search import KeySearch
from gateway_contract.api_keys import generate_api_key, hash_api_key
from gateway_contract.modes import Mode

KEY = generate_api_key(Mode.LIVE)


class TestKeySearch:
    @pytest.mark.parametrize(
        "text",
        [
            KEY,
            f'{{"apikey": "{KEY}"}}',
            f"/v1/current?apikey={KEY}&x=1",
            KEY.removeprefix("km_live_"),
            KEY[:-10],
            f"xx{KEY.removeprefix('km_live_')}yy",
        ],
    )
    def test_finds_a_key_whole_cut_off_or_in_the_middle(self, text):
        assert KeySearch({KEY}).look_at(text.encode(), "here")

    def test_finds_one_across_two_pieces_of_a_file(self, tmp_path, monkeypatch):
        monkeypatch.setattr("devstack.soak.key_search.PIECE_BYTES", 50)
        (tmp_path / "log").write_bytes(b"-" * 30 + KEY.encode() + b"-" * 100)
        search = KeySearch({KEY})
        search._look_at_file(tmp_path / "log")
        assert search.found == [str(tmp_path / "log")]

    def test_does_not_take_hints_hashes_or_other_keys_for_it(self):
        search = KeySearch({KEY})
        for text in (f"km_live_…{KEY[-4:]}", hash_api_key(KEY), generate_api_key(Mode.LIVE)):
            assert not search.look_at(text.encode(), "here")
        assert search.found == []
