"""Processes that are killed in the middle of everything, while the server fails: each event arrives, once."""

import itertools
import random
import subprocess
import sys
import time
from pathlib import Path

from kong_monetize_client import Client, Options
from tests.client.conftest import DROP_AFTER, DROP_BEFORE, TOKEN, Server

REPORTING = Path(__file__).with_name("reporting.py")
REPOSITORY = Path(__file__).parents[2]
KILLS = 6


def test_no_event_is_lost_or_counted_twice(server: Server, refuses, tmp_path: Path):
    chance = random.Random(7)
    reported: list[int] = []
    first = 0
    for _ in range(KILLS):
        trouble = [None, None, DROP_BEFORE, DROP_AFTER, refuses(503, "ingest_unavailable")]
        with server.guard:
            server.plan = list(chance.choices(trouble, k=30))
        process = subprocess.Popen(
            [sys.executable, REPORTING, server.url, tmp_path, TOKEN, str(first)],
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            env={"PYTHONPATH": str(REPOSITORY)},
        )
        lines = list(itertools.islice(process.stdout, chance.randrange(50, 600)))
        time.sleep(chance.random() * 0.05)
        process.kill()
        lines += process.stdout.read().splitlines()
        process.stdout.close()
        process.wait()
        # the last line may be cut off; its event was reported all the same
        reported += [int(line) for line in lines if line.strip()][:-1]
        first = max(reported) + 1_000_000
    with server.guard:
        server.plan = []
    client = Client(server.url, TOKEN, source="/shop", options=Options(directory=tmp_path))
    client.flush(60)
    assert client.close() == 0
    arrived = {int(event_id) for event_id in server.ids}
    assert set(reported) <= arrived
    assert len(reported) > KILLS * 50
    # what arrived beyond that had been reported, too: the word of it was cut off
    assert len(arrived) - len(set(reported)) <= KILLS * 1000
    for event_id, event in server.events.items():
        assert event["data"]["units"] == {"transactions": int(event_id)}
    # each was sent with the same content every time, or the server would have named a conflict
    assert not (tmp_path / "rejected.jsonl").exists()
    sent = sum(len(batch) for batch in server.batches)
    assert sent > len(arrived)
