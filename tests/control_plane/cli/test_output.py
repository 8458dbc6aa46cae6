"""What commands print on a terminal."""

# ruff: noqa: RUF001 - as on any invoice

import re
import sys

import pytest

from control_plane.entrypoints.commands.invoice_lines import print_lines
from control_plane.entrypoints.commands.output import print_fields, print_rows
from control_plane.entrypoints.commands.subscription_output import demand_words

ID = "inv_01m84j7q331tb3qaw6ah7h84bq"
ROW = {"id": ID, "price": "49.00 USD/month + 0.0015 USD/request + 0.02 USD/forecast", "total": {"text": "$7.00"}}
DEARER = {**ROW, "total": {"text": "$1,049.00"}}


@pytest.fixture
def printed(monkeypatch, capsys):
    """Print on a terminal of so many columns, and return the lines."""

    def run(width: int, *, rows=(ROW, DEARER), columns=("id", "price", "total.text"), show=print_rows, **how):
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        show(rows, columns, **how)
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

    def test_ids_go_below_their_rows_where_even_that_is_too_wide(self, printed):
        lines = printed(40)
        assert max(len(line) for line in lines) <= 40
        assert sum(line == f"  {ID}" for line in lines) == 2
        assert " ".join(" ".join(line[:30].split()) for line in lines[1:4]) == ROW["price"]

    @pytest.mark.parametrize("width", [20, 1])
    def test_nothing_is_cut_on_a_terminal_that_is_too_narrow_for_anything(self, printed, width):
        lines = printed(width)
        assert set(ROW["price"].split()) <= set(" ".join(lines).split())
        assert sum(ID in line for line in lines) == 2
        assert sum("$1,049.00" in line for line in lines) == 1

    def test_what_else_is_too_wide_goes_below_by_its_name(self, printed):
        row = {"name": "Nimbus", "reason": "n" * 60, "created_by": "c" * 20, "ended_at": None}
        lines = printed(80, rows=[row], columns=tuple(row))
        assert [line.rstrip() for line in lines] == [
            "name    reason",
            f"Nimbus  {'n' * 60}",
            f"  created by {'c' * 20}",
        ]

    def test_two_ids_of_one_kind_are_told_apart(self, printed):
        accounts = [f"acc_{letter * 26}" for letter in "0123"]
        row = {"number": "INV-000001", "id": ID, "payer": accounts[0], "referrer_id": accounts[1]}
        assert printed(60, rows=[row], columns=tuple(row))[2:] == [
            f"  {ID}",
            f"  payer {accounts[0]}",
            f"  referrer id {accounts[1]}",
        ]

    def test_times_are_as_short_as_they_can_be_given_again(self, printed):
        row = {"from": "2026-11-23T17:00:00.000Z", "at": "2026-11-23T17:04:05.678Z", "on": "2026-11-23"}
        line = printed(80, rows=[row], columns=tuple(row))[1]
        assert line.split() == ["2026-11-23T17:00Z", "2026-11-23T17:04:05Z", "2026-11-23"]

    def test_amounts_end_in_one_column(self, printed):
        _, cheap, dear = printed(120)
        assert len(cheap.rstrip()) == len(dear.rstrip())


def a_line(**values):
    period = {"start": "2026-11-01T00:00:00.000Z", "end": "2026-12-01T00:00:00.000Z"}
    given = {
        "position": 1,
        "formula": "10 requests × $0.5",
        "period": period,
        "amount": {"text": "$5.00"},
        **values,
    }
    return {"description": "Requests", "explanation": ["10 requests × $0.5 = $5.", "10 were counted."], **given}


FEE = a_line(position=2, description="Plan", formula="$5.00", explanation=["$5.00 = $5.00.", "By agreement."])
SUMS = [("VAT", "19 % of $10.00", "$1.90"), ("Total", "", "$11.90")]


class TestInvoiceLines:
    @pytest.fixture
    def shown(self, printed):
        def run(**how):
            return [
                line.rstrip() for line in printed(80, show=print_lines, rows=[a_line(), FEE], columns=SUMS, **how)
            ]

        return run

    def test_say_of_which_period_they_are(self, shown):
        assert shown(explain=False) == [
            "#  description                             amount",
            "1  Requests                                 $5.00",
            "   10 requests × $0.5",
            "   2026-11-01T00:00Z to 2026-12-01T00:00Z",
            "2  Plan                                     $5.00",
            "   2026-11-01T00:00Z to 2026-12-01T00:00Z",
            "   VAT (19 % of $10.00)                     $1.90",
            "   Total                                   $11.90",
        ]

    def test_are_explained_in_words(self, shown):
        assert shown(explain=True, of_periods=False)[1:-2] == [
            "1  Requests                   $5.00",
            "   10 requests × $0.5 = $5.",
            "   10 were counted.",
            "2  Plan                       $5.00",
            "   By agreement.",
        ]

    def test_are_a_line_each_in_a_pipe(self, capsys):
        print_lines([a_line()], SUMS, explain=False)
        columns = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        assert columns[0] == ["#", "description", "formula", "amount", "period.start", "period.end"]
        assert columns[1][:5] == ["1", "Requests", "10 requests × $0.5", "$5.00", "2026-11-01T00:00:00.000Z"]
        assert columns[3][1:4] == ["Total", "", "$11.90"]


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
