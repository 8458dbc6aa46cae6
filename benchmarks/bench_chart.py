"""The usage chart of one account, and its request history, over 100 million stored events.

Events of 89 days and 1,001 accounts are made inside the embedded ClickHouse, in the product's own table; one
account has a tenth of them. Their hourly figures are copied into PostgreSQL and rolled up to days (see
chart_data.py). Then a real `km serve` over these stores is asked through HTTP, one question after another: the
heavy account, and accounts of the middle, another one each time. "First" is the first question of its kind. "From
events" is the chart by day counted from the events themselves, without HTTP. Ends with 1 where a chart's calls are
not those of the events. Prints a table and writes JSON to `benchmarks/results/chart.json`. 100 million events take
minutes to make, and disk, which is given back.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx
from chart_data import DAYS, OTHERS, Made, account_name
from pipeline_kit import Stores, running_server, running_stores

from control_plane.foundation.clock import floor_day, floor_hour, to_ms, utc_now
from control_plane.foundation.pagination import encode_cursor

TARGET_MS = 100.0
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
HEAVY = 0
LIGHT = range(OTHERS // 2, OTHERS // 2 + 50)
PAGE = 50
Params = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000_000)
    parser.add_argument("--charts", type=int, default=200, help="questions for each chart")
    parser.add_argument("--searches", type=int, default=100, help="questions for each search")
    parser.add_argument("--pause", action="store_true", help="wait for Enter at the end, with everything running")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "chart.json")
    options = parser.parse_args()
    now = utc_now()
    with tempfile.TemporaryDirectory(prefix="kmb") as directory, running_stores(Path(directory)) as stores:
        made = make_data(stores, events=options.events, end=floor_hour(now))
        with (
            running_server(stores) as server,
            httpx.Client(
                base_url=f"{server.url}/admin/v1", headers={"Authorization": f"Bearer {made.token}"}, timeout=60
            ) as client,
        ):
            time.sleep(3)  # the workers have had their first look
            load = os.getloadavg()[0]
            figures = Questions(client, now).ask(charts=options.charts, searches=options.searches)
            load = round((load + os.getloadavg()[0]) / 2, 1)
            wrong = wrong_charts(client, made, now)
            if options.pause:
                input(f"{server.url} token {made.token} {stores.database_url}; Enter ends it")
    show(figures, made, options.events)
    print(f"others had the machine, too: load {load} for {os.cpu_count()} cores")
    options.json.parent.mkdir(exist_ok=True)
    told = {name: value for name, value in vars(made).items() if name not in {"token", "charted_calls"}}
    options.json.write_text(
        json.dumps({"events": options.events, "load": load, **told, "milliseconds": figures}, indent=2) + "\n"
    )
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def make_data(stores: Stores, *, events: int, end: datetime) -> Made:
    """Make events and figures in a process of its own: the server must be the only one to open the event store."""
    wanted = {
        "clickhouse_dsn": stores.clickhouse_dsn,
        "database_url": stores.database_url,
        "events": events,
        "end": end.isoformat(),
        "charted": [HEAVY, LIGHT[0]],
    }
    command = [sys.executable, str(Path(__file__).with_name("chart_data.py")), json.dumps(wanted)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Made(**json.loads(answer.stdout.splitlines()[-1]))


class Questions:
    """What is asked, of whom, and how long each took."""

    def __init__(self, client: httpx.Client, now: datetime) -> None:
        self._client, self._now = client, now
        self._given_up = 0

    def ask(self, *, charts: int, searches: int) -> dict[str, dict[str, float]]:
        """Return milliseconds by question; the first says what any question takes."""
        plain = itertools.repeat((f"/accounts/{account_name(HEAVY)}", {}), charts)
        figures = {"an account, no figures": self._times(plain)}
        for who, numbers in (("heavy", [HEAVY]), ("light", LIGHT)):
            for name, params in charts_of(self._now).items():
                asked = (
                    (f"/accounts/{account_name(number)}/usage", params) for number in itertools.cycle(numbers)
                )
                figures[f"{who}: {name}"] = self._times(itertools.islice(asked, charts))
            for name, params in self._searches(numbers, searches).items():
                figures[f"{who}: {name}"] = self._times(("/requests", each) for each in params)
        ids = self._request_ids([HEAVY, *LIGHT], searches)
        figures["all: one request id"] = self._times(("/requests", {"request_id": one}) for _, one in ids)
        by_day = charts_of(self._now)["by day, 90 days"]
        figures["all: by day, 90 days"] = self._times(("/usage", by_day) for _ in range(max(3, charts // 20)))
        return figures

    def _searches(self, numbers: Iterable[int], count: int) -> dict[str, list[Params]]:
        """Return the parameters of each search, `count` times, of one account after the other."""
        accounts = [{"account_id": account_name(number), "limit": PAGE} for number in numbers]
        asked = list(itertools.islice(itertools.cycle(accounts), count))
        span = {"start": _text(self._now - DAYS * DAY)}
        ids = self._request_ids(numbers, count)
        return {
            "newest requests": asked,
            "newest with status 5xx": [{**each, "status": "5xx"} for each in asked],
            "a page in the middle": [
                {**each, **span, "cursor": self._middle(each["account_id"], number)}
                for number, each in enumerate(asked)
            ],
            "one request id": [{"account_id": account, "request_id": one} for account, one in ids],
        }

    def _middle(self, account_id: str, number: int) -> str:
        """Return the cursor of a page behind about half of the account's calls, another one for each number."""
        at = self._now - DAYS / 2 * DAY - number * timedelta(minutes=7)
        return encode_cursor(to_ms(at), "bench", account_id)

    def _request_ids(self, numbers: Iterable[int], count: int) -> list[tuple[str, str]]:
        """Return (account, request id) of calls of all ages."""
        found: list[tuple[str, str]] = []
        for turn, number in enumerate(itertools.islice(itertools.cycle(numbers), count)):
            account_id = account_name(number)
            at = self._now - (turn + 1) * (DAYS - 1) / (count + 1) * DAY
            params = {
                "account_id": account_id,
                "limit": 1,
                "start": _text(self._now - DAYS * DAY),
                "end": _text(at),
            }
            items = self._client.get("/requests", params=params).raise_for_status().json()["items"]
            found += [(account_id, item["request_id"]) for item in items]
        return found

    def _times(self, questions: Iterable[tuple[str, Params]]) -> dict[str, float]:
        self._given_up = 0
        times = list(self._each(questions))
        cuts = statistics.quantiles(times, n=100, method="inclusive")
        return {
            "first": round(times[0], 1),
            "p50": round(cuts[49], 1),
            "p99": round(cuts[98], 1),
            "asked": len(times),
            "given_up": self._given_up,
        }

    def _each(self, questions: Iterable[tuple[str, Params]]) -> Iterator[float]:
        for path, params in questions:
            started = time.perf_counter()
            answer = self._client.get(path, params=params)
            yield (time.perf_counter() - started) * 1e3
            if answer.status_code == 422 and answer.json()["code"] == "search_too_broad":
                self._given_up += 1
            elif answer.status_code != 200:
                raise SystemExit(f"unexpected answer to {path} {params}: {answer.status_code} {answer.text[:300]}")


def charts_of(now: datetime) -> dict[str, Params]:
    """Return the parameters of each chart, the running hour included."""
    end = floor_hour(now) + HOUR
    return {
        "by day, 90 days": {"group_by": "day", "start": _text(floor_day(now) - 89 * DAY), "end": _text(end)},
        "by hour, 7 days": {"group_by": "hour", "start": _text(end - 7 * DAY), "end": _text(end)},
        "by endpoint, a month": {"group_by": "endpoint", "start": _text(end - 30 * DAY), "end": _text(end)},
    }


def wrong_charts(client: httpx.Client, made: Made, now: datetime) -> list[str]:
    """Compare the calls of whole charts with the events."""
    found = []
    span = charts_of(now)["by day, 90 days"]
    for number, calls in made.charted_calls.items():
        for group in ("day", "endpoint", "hour"):
            path = f"/accounts/{account_name(int(number))}/usage"
            answer = client.get(path, params={**span, "group_by": group}).raise_for_status().json()
            charted = sum(item["calls"] for item in answer["items"])
            if charted != calls:
                found.append(f"account {number} has {calls} calls, its chart by {group} says {charted}")
    return found


def show(figures: dict[str, dict[str, float]], made: Made, events: int) -> None:
    print(f"{events:,} events, {made.events_bytes / 1e9:.2f} GB in {made.events_parts} parts; ", end="")
    print(f"{made.hourly_rows:,} rows of {made.hours:,} hours, {made.daily_rows:,} rows of days")
    print(f"\n{'milliseconds':<40}{'first':>10}{'p50':>10}{'p99':>10}   p99 of the target {TARGET_MS:.0f} ms")
    for name, row in figures.items():
        is_chart = name.startswith(("heavy: by", "light: by"))
        ratio = f"{row['p99'] / TARGET_MS:>10.2f}" if is_chart else ""
        if row["given_up"]:
            ratio += f"   {row['given_up']} of {row['asked']} given up"
        print(f"{name:<40}{row['first']:>10,.1f}{row['p50']:>10,.1f}{row['p99']:>10,.1f}{ratio}")
    for who, ms in zip(("heavy", "light"), made.from_events_ms.values(), strict=True):
        ratio = ms / figures[f"{who}: by day, 90 days"]["p50"]
        print(f"{f'{who}: by day, from events':<40}{'':>10}{ms:>10,.1f}   {ratio:.1f} times the chart's p50")


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


if __name__ == "__main__":
    sys.exit(main())
