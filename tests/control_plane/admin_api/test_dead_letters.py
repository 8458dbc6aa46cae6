"""Dead letters over the API: who may see and handle them, and what the answers say."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.admin_api.services import Services
from control_plane.foundation.clock import to_ms
from control_plane.usage.collect.catalog import CatalogWatch
from control_plane.usage.collect.lines import dead_letter
from control_plane.usage.store import EventStore, EventStoreConfig
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.receipts import Place, Receipt, sign_receipt
from tests.control_plane.admin_api.conftest import NOW

ClientOf = Callable[[str], httpx.AsyncClient]
PATH = "/admin/v1/dead-letters"
SECRET = b"a gateway secret of more than 32 characters"


def ok(answer: httpx.Response) -> dict:
    assert answer.status_code == 200, answer.text
    return answer.json()


def a_line() -> bytes:
    receipt = Receipt(
        "emitter",
        7,
        3,
        to_ms(NOW - timedelta(minutes=5)),
        "acc_1",
        "key_1",
        "weather",
        Mode.LIVE,
        Outcome.SERVED,
        1,
    )
    answer = sign_receipt(receipt, place=Place.ANSWER, secret=SECRET)
    return json.dumps({"v": 1, "id": "f" * 32, "at": to_ms(NOW), "ra": answer}).encode()


@pytest.fixture
def store(clickhouse_dsn: str) -> Iterator[EventStore]:
    store = EventStore.open(EventStoreConfig(dsn=clickhouse_dsn))
    yield store
    store.close()


@pytest.fixture
async def letters(client: httpx.AsyncClient, store: EventStore) -> list[str]:
    """Ids of a line that is an event by now and of one that never will be, in this order."""
    made = [
        dead_letter(reason="a receipt of nobody", raw=a_line(), shipper_id="node_a", segment="s", number=1),
        dead_letter(reason="unreadable line", raw=b"{nonsense", shipper_id="node_b", segment="s", number=2),
    ]
    store.insert_dead_letters(made, received_at_ms=to_ms(NOW))
    listed = ok(await client.get(PATH))["items"]
    return [letter["id"] for letter in sorted(listed, key=lambda letter: letter["number"])]


@pytest.fixture
def _with_secrets(app: FastAPI, services: Services, sessions: async_sessionmaker[AsyncSession]) -> None:
    app.state.services = replace(services, usage_catalog=CatalogWatch(secrets=(SECRET,), sessions=sessions))


class TestDeadLetters:
    async def test_are_listed_newest_first_and_shown_with_their_line(self, client, letters):
        page = ok(await client.get(PATH, params={"limit": 1}))
        rest = ok(await client.get(PATH, params={"cursor": page["next_cursor"]}))
        assert sorted(letter["id"] for letter in page["items"] + rest["items"]) == sorted(letters)
        assert "text" not in page["items"][0]
        shown = ok(await client.get(f"{PATH}/{letters[1]}"))
        assert (shown["text"], shown["first_reason"], shown["state"]) == ("{nonsense", "unreadable line", "open")
        (found,) = ok(await client.get(PATH, params={"shipper_id": "node_a", "reason": "RECEIPT"}))["items"]
        assert found["id"] == letters[0]

    @pytest.mark.usefixtures("_with_secrets")
    async def test_are_replayed_with_reason_and_author(self, client, letters, store):
        body = {"letter_ids": letters, "reason": "the secret was added"}
        done = {letter["id"]: letter for letter in ok(await client.post(f"{PATH}/replay", json=body))["items"]}
        first, second = (done[letter_id] for letter_id in letters)
        assert (first["state"], first["account_id"], first["event_id"]) == ("replayed", "acc_1", "emitter-7")
        assert (second["state"], second["attempts"]) == ("open", 1)
        assert second["result"].startswith("unreadable line")
        assert first["reason"] == "the secret was added"
        assert first["author"].startswith("token:tok_")
        assert store.count_events(account_id="acc_1") == 1
        (left,) = ok(await client.get(PATH, params={"state": "open"}))["items"]
        assert left["id"] == letters[1]
        body = {"letter_ids": [letters[1]], "reason": "noise"}
        (gone,) = ok(await client.post(f"{PATH}/dismiss", json=body))["items"]
        assert (gone["state"], gone["reason"]) == ("dismissed", "noise")

    async def test_cannot_be_replayed_by_a_server_without_secrets(self, client, letters):
        answer = await client.post(f"{PATH}/replay", json={"letter_ids": letters, "reason": "x"})
        assert (answer.status_code, answer.json()["code"]) == (409, "replay_unavailable")

    @pytest.mark.parametrize("role", ["finance", "support", "read_only"])
    async def test_are_handled_by_admins_only(self, client_of: ClientOf, letters, role):
        for what in ("replay", "dismiss"):
            answer = await client_of(role).post(f"{PATH}/{what}", json={"letter_ids": letters, "reason": "x"})
            assert (answer.status_code, answer.json()["code"]) == (403, "role_not_allowed")

    async def test_that_are_not_there_are_named(self, client, letters):
        missing = "dl_" + "0" * 32
        assert (await client.get(f"{PATH}/{missing}")).json()["code"] == "dead_letter_not_found"
        body = {"letter_ids": [letters[0], missing], "reason": "x"}
        assert (await client.post(f"{PATH}/dismiss", json=body)).status_code == 404
        assert ok(await client.get(f"{PATH}/{letters[0]}"))["state"] == "open"
