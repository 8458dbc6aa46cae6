"""Writes records into Redis: never an older one over a newer one, and the record before its version.

The limit script compares a caller's versions with those in the account's version hash. A version that arrived
before its record would send the gateway to read a record that is not there yet.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TypeVar

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from control_plane.gateway_sync.records import (
    AccountSnapshot,
    KeySnapshot,
    build_account_record,
)
from control_plane.gateway_sync.redis_scripts import load_script
from gateway_contract.invalidations import account_invalidation, key_invalidation
from gateway_contract.records import encode_record
from gateway_contract.redis_names import (
    INVALIDATIONS_CHANNEL,
    account_record,
    account_versions,
    key_record,
)

# A script holds Redis for about 5 us a record: short enough not to be felt by a call's limit script.
RECORDS_PER_SCRIPT = 50

Item = TypeVar("Item")


class RecordWriter:
    """Writes batches of records, each batch in one trip.

    A batch is not atomic, but each record is, and repeating a batch changes nothing.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._write_keys = load_script(client, "project_keys")
        self._write_versions = load_script(client, "project_versions")
        self._write_accounts = load_script(client, "project_accounts")

    async def write_keys(self, keys: Sequence[KeySnapshot], *, announce_new: bool = True) -> int:
        """Write key records, then their versions; returns how many records changed.

        Without `announce_new` only records that replaced another are published.
        """
        async with self._client.pipeline(transaction=False) as pipeline:
            for chunk in _chunks(keys):
                await self._queue_keys(pipeline, chunk, announce_new=announce_new)
            results = await pipeline.execute()
        return sum(results[::2])

    async def write_accounts(
        self, accounts: Sequence[AccountSnapshot], *, now: datetime, public_url: str, announce_new: bool = True
    ) -> int:
        """Write account records with their versions; returns how many records changed."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for chunk in _chunks(accounts):
                names = []
                for account in chunk:
                    names += [account_record(account.id), account_versions(account.id)]
                records = [build_account_record(account, now=now, public_url=public_url) for account in chunk]
                values = _values(
                    versions=[account.version for account in chunk],
                    records=[encode_record(record) for record in records],
                    messages=[account_invalidation(account.id) for account in chunk],
                    announce_new=announce_new,
                )
                await self._write_accounts(keys=names, args=values, client=pipeline)
            return sum(await pipeline.execute())

    async def _queue_keys(self, pipeline: Pipeline, keys: Sequence[KeySnapshot], *, announce_new: bool) -> None:
        records = [key.record for key in keys]
        versions = [record.version for record in records]
        values = _values(
            versions=versions,
            records=[encode_record(record) for record in records],
            messages=[key_invalidation(key.key_hash) for key in keys],
            announce_new=announce_new,
        )
        await self._write_keys(keys=[key_record(key.key_hash) for key in keys], args=values, client=pipeline)
        await self._write_versions(
            keys=[account_versions(record.account_id) for record in records],
            args=[_lines(record.id for record in records), _lines(map(str, versions))],
            client=pipeline,
        )


def _values(
    *, versions: list[int], records: list[str], messages: list[str], announce_new: bool
) -> list[str | bytes]:
    """Return the arguments that both scripts take. JSON holds no newline, so lines keep records apart."""
    flag = "1" if announce_new else "0"
    return [INVALIDATIONS_CHANNEL, flag, _lines(map(str, versions)), _lines(records), _lines(messages)]


def _lines(values: Iterable[str]) -> bytes:
    return "\n".join(values).encode()


def _chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), RECORDS_PER_SCRIPT):
        yield items[start : start + RECORDS_PER_SCRIPT]
