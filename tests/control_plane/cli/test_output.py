"""What commands print on a terminal."""

import re
import sys

import pytest

from control_plane.entrypoints.commands.output import print_fields, print_rows
from control_plane.entrypoints.commands.subscription_output import demand_words

ID = "inv_01m84j7q331tb3qaw6ah7h84bq"
ROW = {"id": ID, "price": "49.00 USD/month + 0.0015 USD/request + 0.02 USD/forecast", "total": {"text": "$7.00"}}
DEARER = {**ROW, "total": {"text": "$1,049.00"}}


@pytest.fixture
def printed(monkeypatch, capsys):
    """Print rows on a terminal of so many columns, and return the lines."""

    def run(width: int) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        print_rows([ROW, DEARER], ("id", "price", "total.text"))
        return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()

    return run


class TestTables:
    def test_each_row_is_a_line_where_the_terminal_is_wide_enough(self, printed):
        assert len(printed(120)) == 3

    def test_long_texts_are_folded_in_their_column_and_ids_stay_whole(self, printed):
        lines = printed(70)
        assert max(len(line) for line in lines) <= 70
        assert sum(ID in line for line in lines) == 2
        assert len(lines) > 3

    def test_nothing_is_cut_where_even_that_is_too_wide(self, printed):
        lines = printed(40)
        assert len(lines) == 3
        assert ROW["price"] in lines[1]

    def test_amounts_end_in_one_column(self, printed):
        _, cheap, dear = printed(120)
        assert len(cheap.rstrip()) == len(dear.rstrip())


class TestFields:
    def test_what_is_empty_is_said_to_be(self, capsys):
        print_fields({"city": "", "country": None}, ("city", "country"))
        assert capsys.readouterr().out == "city     -\ncountry  -\n"


class TestDemand:
    def test_is_told_in_a_sentence(self):
        demand = {"days": 30, "units": {"requests": 12_345, "tokens": 12}, "peak_hour_calls": 900}
        assert demand_words(demand | {"refused_calls": 40, "rate_limited_calls": 7}) == (
            "In the last 30 days: 12,345 requests, 12 tokens; 40 calls refused, 7 by a rate limit; "
            "at most 900 calls in an hour."
        )
        assert demand_words(demand | {"units": {}, "refused_calls": 0, "rate_limited_calls": 0}) == (
            "In the last 30 days: nothing; at most 900 calls in an hour."
        )
