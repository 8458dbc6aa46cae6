"""Ingest: events a second through HTTP into a running `km serve`, accepted and stored, in batches of 1,000.

Stores are the embedded ones; senders and stores share the machine with the server. Sends everything a second time,
too: duplicates. Prints a table and writes JSON to `benchmarks/results/ingest.json`.
"""

import argparse
import asyncio
import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))

from devstack.stores.event_store import event_store_dsn
from devstack.stores.postgres import EmbeddedPostgres
from devstack.stores.valkey import EmbeddedValkey
from kong_monetize_client import Client, Options

REPOSITORY = Path(__file__).parents[1]
BATCH = 1_000
HEADERS = {"Content-Type": "application/cloudevents-batch+json", "Content-Encoding": "gzip"}
ACCOUNTS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "ingest.json")
    options = parser.parse_args()
    figures: dict[str, float] = {"batches": options.batches, "events_per_batch": BATCH}
    with running_server() as (url, token):
        accounts = make_accounts(url, token)
        for senders in (1, 4, 8):
            bodies = [body_of(accounts, f"{senders}-{number}") for number in range(options.batches)]
            for name in ("accepted", "duplicates"):
                seconds = asyncio.run(send(url, token, bodies, senders=senders, expected=name))
                figures[f"{name}_per_second_{senders}_senders"] = round(options.batches * BATCH / seconds)
        figures |= measure_client(url, token, accounts, options.batches * BATCH)
    for name, value in figures.items():
        print(f"{name:40}{value:>12,}")
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps(figures, indent=2) + "\n")


def body_of(accounts: list[str], name: str) -> bytes:
    events = [
        {
            "specversion": "1.0",
            "id": f"{name}-{number}",
            "source": "/bench",
            "type": "com.example.transaction.completed",
            "subject": accounts[number % len(accounts)],
            "data": {"units": {"transactions": 1, "cents": number}, "properties": {"country": "NO"}},
        }
        for number in range(BATCH)
    ]
    return gzip.compress(json.dumps(events).encode(), 5)


async def send(url: str, token: str, bodies: list[bytes], *, senders: int, expected: str) -> float:
    """Return the seconds that all of them took."""
    left = iter(bodies)
    headers = {**HEADERS, "Authorization": f"Bearer {token}"}

    async def sender(client: httpx.AsyncClient) -> None:
        for body in left:
            answer = await client.post(f"{url}/ingest/v1/events", content=body)
            if answer.status_code != 200 or answer.json()[expected] != BATCH:
                raise SystemExit(f"unexpected answer {answer.status_code}: {answer.text[:300]}")

    async with httpx.AsyncClient(headers=headers, timeout=60) as client:
        started = time.perf_counter()
        await asyncio.gather(*(sender(client) for _ in range(senders)))
        return time.perf_counter() - started


def measure_client(url: str, token: str, accounts: list[str], events: int) -> dict[str, float]:
    """Report through the client with its buffer on disk: how fast `report` returns, and how fast events arrive."""
    with tempfile.TemporaryDirectory() as directory:
        client = Client(url, token, source="/client", options=Options(directory=directory, max_events=BATCH))
        started = time.perf_counter()
        for number in range(events):
            client.report("sold", subject=accounts[number % len(accounts)], units={"transactions": 1})
        reported = time.perf_counter() - started
        client.flush(600)
        arrived = time.perf_counter() - started
        client.close()
    return {
        "client_reports_per_second": round(events / reported),
        "client_arrived_per_second": round(events / arrived),
    }


def make_accounts(url: str, token: str) -> list[str]:
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=f"{url}/admin/v1", headers=headers, timeout=60) as admin:
        plans = (REPOSITORY / "plans.yml").read_text()
        admin.post("/plans/apply", content=plans, headers={"Content-Type": "application/yaml"}).raise_for_status()
        accounts = []
        for number in range(ACCOUNTS):
            accounts.append(admin.post("/accounts", json={"name": f"Account {number}"}).json()["id"])
            admin.post(f"/accounts/{accounts[-1]}/subscriptions", json={"plan": "starter"}).raise_for_status()
        return accounts


@contextlib.contextmanager
def running_server() -> Iterator[tuple[str, str]]:
    """Yield address and an owner's token of a `km serve` over stores of its own."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        postgres = EmbeddedPostgres(directory / "postgres")
        valkey = EmbeddedValkey(directory / "valkey")
        (directory / "valkey").mkdir()
        postgres.start()
        valkey.start()
        env = {
            "PATH": os.environ["PATH"],
            "HOME": name,
            "KM_DATABASE_URL": postgres.create_database("bench").replace(
                "postgresql://", "postgresql+psycopg://", 1
            ),
            "KM_REDIS_URL": valkey.url,
            "KM_CLICKHOUSE_DSN": event_store_dsn(directory / "events"),
            "KM_GATEWAY_SECRET": "for-benchmarks-only-for-benchmarks-only",
            "KM_KONG_CONFIG": str(REPOSITORY / "kong.yml"),
            "KM_INGEST_EVENTS_PER_SECOND": "0",
        }
        km = [sys.executable, "-m", "control_plane.entrypoints.cli"]
        subprocess.run([*km, "db", "upgrade"], env=env, cwd=REPOSITORY, check=True, capture_output=True)
        created = subprocess.run(
            [*km, "db", "create-token"], env=env, cwd=REPOSITORY, check=True, capture_output=True, text=True
        )
        log = (directory / "server.log").open("w")
        server = subprocess.Popen(
            [*km, "serve", "--port", "0"], env=env, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            url = server.stdout.readline().removeprefix("listening on ").strip()
            wait_until_ready(url)
            yield url, created.stdout.strip()
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
            log.close()
            valkey.stop()
            postgres.destroy()


def wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + 60
    while httpx.get(f"{url}/readyz", timeout=10).status_code != 200:
        if time.monotonic() > deadline:
            raise SystemExit("the server does not get ready")
        time.sleep(0.2)


if __name__ == "__main__":
    main()
