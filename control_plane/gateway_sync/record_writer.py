"""Writes records into Redis: never an older one over a newer one, and the record before its version.

The limit script compares a caller's versions with those in the account's version hash. A version that arrived
before its record would send the gateway to read a record that is not there yet.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from control_plane.foundation.redis import RedisClient
from control_plane.gateway_sync.moved_counters import MovedCounter
from control_plane.gateway_sync.records import (
    AccountSnapshot,
    KeySnapshot,
    build_account_record,
)
from control_plane.gateway_sync.redis_scripts import Script, together
from gateway_contract.invalidations import account_invalidation, key_invalidation
from gateway_contract.records import AccountRecord, encode_record
from gateway_contract.redis_names import (
    INVALIDATIONS_CHANNEL,
    account_record,
    account_versions,
    key_record,
)

# A script holds Redis for about 5 us a record: short enough not to be felt by a call's limit script.
RECORDS_PER_SCRIPT = 50


class RecordWriter:
    """Writes batches of records, each batch in one trip or two.

    A batch is not atomic, but each record is, and repeating a batch changes nothing.
    """

    def __init__(self, client: RedisClient) -> None:
        self.client = client
        self._write_keys = Script(client, "project_keys")
        self._write_versions = Script(client, "project_versions")
        self._write_accounts = Script(client, "project_accounts")
        self._begin_counting = Script(client, "move_counters", "begin_spend_caps", "project_accounts")

    async def write_keys(self, keys: Sequence[KeySnapshot], *, announce_new: bool = True) -> int:
        """Write key records, then their versions; returns how many records changed.

        Without `announce_new` only records that replaced another are published.
        """
        groups = together(self.client, keys, _key_name, most=RECORDS_PER_SCRIPT)
        written = await self._write_keys.run_each(
            [
                (
                    [_key_name(key) for key in group],
                    _values(
                        versions=[key.record.version for key in group],
                        records=[encode_record(key.record) for key in group],
                        messages=[key_invalidation(key.key_hash) for key in group],
                        announce_new=announce_new,
                    ),
                )
                for group in groups
            ]
        )
        # a trip of its own: versions may lie on another server than the records, which must be there first
        groups = together(self.client, keys, _versions_name, most=RECORDS_PER_SCRIPT)
        await self._write_versions.run_each(
            [
                (
                    [_versions_name(key) for key in group],
                    [_lines(key.record.id for key in group), _lines(str(key.record.version) for key in group)],
                )
                for group in groups
            ]
        )
        return sum(written)

    async def write_accounts(
        self, accounts: Sequence[AccountSnapshot], *, now: datetime, public_url: str, announce_new: bool = True
    ) -> int:
        """Write account records with their versions; returns how many records changed."""
        calls = []
        for group in together(self.client, accounts, _account_name, most=RECORDS_PER_SCRIPT):
            records = [build_account_record(account, now=now, public_url=public_url) for account in group]
            names = [name for account in group for name in _account_names(account)]
            calls.append((names, _account_values(group, records, announce_new=announce_new)))
        return sum(await self._write_accounts.run_each(calls))

    async def begin_counting(
        self,
        account: AccountSnapshot,
        beginnings: Mapping[str, str],
        moves: Sequence[MovedCounter],
        *,
        now: datetime,
        public_url: str,
    ) -> int:
        """Write one account's record and, in the same moment, change counters so that they suit it.

        `beginnings`: by name of counters, what the script `begin_spend_caps` is told of what calls before may come
        to. `moves`: counters that go on under another name.
        """
        values = _account_values(
            [account], [build_account_record(account, now=now, public_url=public_url)], announce_new=True
        )
        names = [name for move in moves for name in (move.old, move.new)]
        written: int = await self._begin_counting.run(
            keys=[*_account_names(account), *beginnings, *names],
            args=[*values, *beginnings.values(), *(move.words for move in moves), len(moves)],
        )
        return written


def _account_names(account: AccountSnapshot) -> tuple[str, str]:
    return account_record(account.id), account_versions(account.id)


def _account_values(
    accounts: Sequence[AccountSnapshot], records: Iterable[AccountRecord], *, announce_new: bool
) -> list[str | bytes]:
    return _values(
        versions=[account.version for account in accounts],
        records=[encode_record(record) for record in records],
        messages=[account_invalidation(account.id) for account in accounts],
        announce_new=announce_new,
    )


def _key_name(key: KeySnapshot) -> str:
    return key_record(key.key_hash)


def _versions_name(key: KeySnapshot) -> str:
    return account_versions(key.record.account_id)


def _account_name(account: AccountSnapshot) -> str:
    return account_record(account.id)


def _values(
    *, versions: list[int], records: list[str], messages: list[str], announce_new: bool
) -> list[str | bytes]:
    """Return the arguments that both scripts take. JSON holds no newline, so lines keep records apart."""
    flag = "1" if announce_new else "0"
    return [INVALIDATIONS_CHANNEL, flag, _lines(map(str, versions)), _lines(records), _lines(messages)]


def _lines(values: Iterable[str]) -> bytes:
    return "\n".join(values).encode()
