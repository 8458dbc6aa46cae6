"""A year of the whole control plane: every bill is the one that was made by hand, and what differs is found."""

import os
import signal
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path

import pytest
import structlog
from rich.console import Console

from devstack.children import ChildFailedError
from devstack.stores.postgres import EmbeddedPostgres
from devstack.stores.valkey import EmbeddedValkey
from devstack.year.asks import subscribes
from devstack.year.calls import Numbers, calls_of, count
from devstack.year.command import play_year
from devstack.year.gateway import Gateway
from devstack.year.held import Held
from devstack.year.model import Story, at, bill, line, use
from devstack.year.page import render_page
from devstack.year.reconcile import reconcile
from devstack.year.run import Year, run_year
from devstack.year.terminal import print_year

PAGE = Path(__file__).parents[2] / "docs" / "scenario-year.md"
CENT = Decimal("0.01")


def first_invoice(held: Held, **changed: object) -> Held:
    return replace(held, invoices=[replace(held.invoices[0], **changed), *held.invoices[1:]])


def first_note(held: Held, **changed: object) -> Held:
    return replace(held, notes=[replace(held.notes[0], **changed), *held.notes[1:]])


def another_line(held: Held) -> Held:
    words, amount = held.invoices[0].lines[0]
    return first_invoice(held, lines=[(words, amount + CENT), *held.invoices[0].lines[1:]])


def a_request_more(held: Held, source: str) -> Held:
    account, (calls, requests) = next(iter(held.figures[source].items()))
    return replace(
        held, figures={**held.figures, source: {**held.figures[source], account: (calls, requests + 1)}}
    )


def an_event_less(held: Held) -> Held:
    account, events = next(iter(held.events.items()))
    return replace(held, events={**held.events, account: events - 1})


def without_last_invoice(held: Held) -> Held:
    return replace(held, invoices=held.invoices[:-1])


PLANTED: dict[str, Callable[[Held], Held]] = {
    "a line": another_line,
    "a total": lambda held: first_invoice(held, total=held.invoices[0].total + CENT),
    "a discount": lambda held: first_invoice(held, discount=CENT),
    "a status": lambda held: first_invoice(held, status="open"),
    "a currency": lambda held: first_invoice(held, currency="EUR"),
    "a due date": lambda held: first_invoice(held, due_at=held.invoices[0].due_at + timedelta(days=1)),
    "a payment": lambda held: first_invoice(held, paid=Decimal(0)),
    "a refund": lambda held: first_invoice(held, paid_back=CENT),
    "units on a bill": lambda held: first_invoice(held, units=1),
    "an invoice": without_last_invoice,
    "a number": lambda held: replace(held, numbers=[*held.numbers[:-1], "INV-999999"]),
    "a credit note": lambda held: replace(held, notes=held.notes[:-1]),
    "a credit note's number": lambda held: replace(held, notes=held.notes[1:]),
    "a credit note's amount": lambda held: first_note(held, total=CENT),
    "money that a credit note gave": lambda held: first_note(held, to_outside=CENT),
    "events of nobody": lambda held: replace(held, events={**held.events, "": 1}),
    "hourly figures": lambda held: a_request_more(held, "hourly"),
    "daily figures": lambda held: a_request_more(held, "daily"),
    "the ledger": lambda held: a_request_more(held, "ledger"),
    "an event": an_event_less,
    "a balance": lambda held: replace(held, balances=dict.fromkeys(held.balances, CENT)),
    "credits": lambda held: replace(held, credits=dict.fromkeys(held.credits, CENT)),
    "gateways": lambda held: replace(held, plans=dict.fromkeys(held.plans, "free")),
    "statuses": lambda held: replace(held, statuses={}),
    "a draft": lambda held: replace(held, drafts=1),
    "a call set aside": lambda held: replace(held, dead_letters=held.dead_letters + 1),
}


@pytest.mark.timeout(600)
class TestAYearOfCustomers:
    async def test_comes_to_the_bills_made_by_hand_and_to_the_page_in_docs(
        self, database_url, redis_url, clickhouse_dsn
    ):
        year = await run_year(database_url=database_url, redis_url=redis_url, clickhouse_dsn=clickhouse_dsn)
        assert year.found.mismatches == []
        assert [check for check in year.found.checks if check.difference] == []
        assert render_page(year) == PAGE.read_text(), "km year --page docs/scenario-year.md"
        assert "the sum of all differences is 0.00" in printed(year)
        assert [name for name, plant in PLANTED.items() if broken(year, plant).found.ok] == []
        gap = broken(year, PLANTED["a number"])
        assert "gap" not in verdict(gap).partition("- all: ")[0]
        assert verdict(gap).endswith(
            "1 things are not as they should be:\n\n- all: the numbers of invoices have a gap\n"
        )
        assert "all: the numbers of invoices have a gap" in printed(gap)


def broken(year: Year, plant: Callable[[Held], Held]) -> Year:
    held = plant(year.held)
    return replace(year, held=held, found=reconcile(year.stories, year.played, held))


def verdict(year: Year) -> str:
    return render_page(year).rpartition("**The sum")[2]


def printed(year: Year) -> str:
    console = Console(file=StringIO(), width=200)
    print_year(console, year)
    return console.file.getvalue()


VAL = Story(
    name="Val",
    about="stays a month",
    steps=[subscribes("01-01", "starter", "subscribes to Starter")],
    usage=[use("01-10T14", 52_007)],
    bills=[
        bill("01-01", "start", line("49.00", "Starter, January"), total="49.00"),
        bill(
            "02-01",
            "period",
            line("3.01", "52,007 - 50,000 = 2,007 requests * 0.0015 = 3.0105"),
            line("49.00", "Starter, February"),
            total="52.01",
        ),
    ],
)


class TestAMonth:
    async def test_shows_a_call_that_got_lost_on_its_way(
        self, database_url, redis_url, clickhouse_dsn, monkeypatch: pytest.MonkeyPatch
    ):
        shipped = Gateway.ship

        async def ship_all_but_one(gateway, calls):
            await shipped(gateway, calls[1:])

        monkeypatch.setattr(Gateway, "ship", ship_all_but_one)
        year = await run_year(
            database_url=database_url,
            redis_url=redis_url,
            clickhouse_dsn=clickhouse_dsn,
            stories=[VAL],
            until=at("02-07"),
        )
        # the first call is one of the bulk route, of 1,000 requests
        assert {(check.what, check.difference) for check in year.found.checks if check.difference} == {
            ("calls made", 1),
            ("calls counted", 2),
            ("requests", 3_000),
            ("requests on bills", 1_000),
            ("billed", Decimal("4.50")),
            ("paid in money", Decimal("1.50")),
        }
        assert [one.words.partition(":")[2] for one in year.found.mismatches] == [
            " lines is ['1.51', '49.00'], and should be ['3.01', '49.00']",
            " total is 50.51, and should be 52.01",
            " due is 50.51, and should be 52.01",
        ]


class TestThePlainCount:
    def test_counts_each_call_once_and_bills_none_that_failed_or_was_refused_or_has_a_test_key(self):
        calls = calls_of(use("01-10T14", 2_010, refused=4), "acc", Numbers())
        assert len(calls) == 2 + 10 + 2 + 3 + 4
        counted = count([*calls, *calls])["acc"]
        assert (counted.calls, counted.requests) == (21, 2_010)

    def test_makes_calls_within_their_hour(self):
        calls = calls_of(use("01-10T14", 5_000), "acc", Numbers())
        assert calls[0].at == at("01-10T14")
        assert at("01-10T14:59") < calls[-1].at < at("01-10T15")


class TestPlayingIt:
    def test_leaves_nothing_behind_when_ctrl_c_is_pressed_again_while_it_stops(
        self, tmp_path, monkeypatch: pytest.MonkeyPatch
    ):
        done: list[str] = []

        def press(_store):
            raise KeyboardInterrupt

        def stop(_store):
            os.kill(os.getpid(), signal.SIGINT)
            done.append("stopped")
            raise ChildFailedError("it hangs")

        def destroy(_store):
            os.kill(os.getpid(), signal.SIGINT)
            done.append("destroyed")

        before = signal.getsignal(signal.SIGINT)
        monkeypatch.setattr(structlog, "configure", lambda **_: None)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.setattr(EmbeddedPostgres, "start", press)
        monkeypatch.setattr(EmbeddedPostgres, "destroy", destroy)
        monkeypatch.setattr(EmbeddedValkey, "stop", stop)
        with pytest.raises((KeyboardInterrupt, ChildFailedError)):
            play_year(Console(file=StringIO()))
        assert done == ["stopped", "destroyed"]
        assert list(tmp_path.glob("km-year-*")) == []
        assert signal.getsignal(signal.SIGINT) is before
