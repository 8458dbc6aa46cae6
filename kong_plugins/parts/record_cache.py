"""Key and account records in this process: found, read, refreshed, forgotten.

A record in here may be old; the limit script's version check says so. What is known is bounded in number, and
while Redis is away in age.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

from gevent.event import AsyncResult

from gateway_contract.records import (
    AccountRecord,
    KeyRecord,
    RecordError,
    decode_account_record,
    decode_key_record,
)
from gateway_contract.redis_names import account_record, key_bucket, key_record, projection_marker, slot_of
from kong_plugins.parts.bounded_map import BoundedMap
from kong_plugins.parts.redis_connection import RedisLinkError, encode_command
from kong_plugins.parts.redis_links import Link
from kong_plugins.server import metrics

log = logging.getLogger(__name__)

UNKNOWN_FOR_SECONDS = 1.0


class Missing(StrEnum):
    """Why there is no record."""

    UNKNOWN = "unknown"
    # Redis is away, was emptied, or holds something unreadable: nobody can say whose key this is
    UNAVAILABLE = "unavailable"


@dataclass(slots=True, eq=False, weakref_slot=True)
class KnownAccount:
    """`replaced` is set once a newer reading exists; whoever holds this one must look again."""

    record: AccountRecord
    read_at: float
    replaced: bool = False


@dataclass(slots=True, eq=False)
class KnownKey:
    """A key with its account. Times are monotonic seconds.

    `confirmed_at` is when Redis last said that both records are the newest ones. `callers` keeps what the
    plugins have worked out from them.
    """

    key_hash: str
    record: KeyRecord
    account: KnownAccount
    read_at: float
    confirmed_at: float
    callers: dict[Any, Any] = field(default_factory=dict)


Found: TypeAlias = KnownKey | Missing


class RecordCache:
    """For the greenlets of one thread. `capacity` counts keys; unknown keys are kept apart."""

    def __init__(self, link: Link, *, capacity: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._link = link
        self._clock = clock
        self._keys: BoundedMap[str, KnownKey] = BoundedMap(capacity)
        self._unknown: BoundedMap[str, float] = BoundedMap(10_000)
        self._accounts: WeakValueDictionary[str, KnownAccount] = WeakValueDictionary()
        self._reading: dict[str, AsyncResult] = {}

    def knows(self, key_hash: str) -> Found | None:
        """Return what is known of a key without asking Redis; None where nothing is."""
        known = self._keys.get(key_hash)
        if known is not None:
            return known
        unknown_until = self._unknown.get(key_hash)
        if unknown_until is not None and self._clock() < unknown_until:
            return Missing.UNKNOWN
        return None

    def read(self, key_hash: str) -> Found:
        """Read the key's and its account's records from Redis; greenlets asking at once share one reading.

        Where Redis does not answer, what was known stays known and UNAVAILABLE is returned.
        """
        reading = self._reading.get(key_hash)
        if reading is not None:
            found: Found = reading.get()
            return found
        reading = self._reading[key_hash] = AsyncResult()
        found = Missing.UNAVAILABLE
        try:
            found = self._read(key_hash)
        finally:
            del self._reading[key_hash]
            reading.set(found)
        return found

    def forget_key(self, key_hash: str) -> None:
        """Have the key read again at its next call."""
        self._keys.pop(key_hash)
        self._unknown.pop(key_hash)

    def forget_account(self, account_id: str) -> None:
        """Have the account read again at the next call of any of its keys."""
        account = self._accounts.pop(account_id, None)
        if account is not None:
            account.replaced = True

    def forget_unknown(self) -> None:
        """Drop the memory of keys that did not exist."""
        self._unknown.clear()

    def current_account(self, known: KnownKey) -> KnownAccount | None:
        """Return the newest reading of the key's account, or None where it must be read again."""
        if known.account.replaced:
            newer = self._accounts.get(known.account.record.id)
            if newer is None:
                return None
            known.account = newer
        return known.account

    def _read(self, key_hash: str) -> Found:
        began = self._clock()
        try:
            # the marker tells an emptied Redis from a key that nobody has
            name, marker_name = key_record(key_hash), projection_marker(key_bucket(key_hash))
            text, marker = self._link.ask(
                [encode_command("GET", name), encode_command("EXISTS", marker_name)], slot_of(name)
            )
            if text is None:
                return self._nothing_found(key_hash, emptied=not marker)
            record = decode_key_record(text)
            name = account_record(record.account_id)
            account_text = self._link.ask_one(encode_command("GET", name), slot_of(name))
            if account_text is None:
                # written in the wrong order, or lost: not the caller's fault
                _reads["account_missing"].inc()
                return Missing.UNAVAILABLE
            account = decode_account_record(account_text)
        except RedisLinkError as error:
            log.info("cannot read records: %s", error)
            _reads["redis_failed"].inc()
            return Missing.UNAVAILABLE
        except RecordError:
            log.exception("unreadable record")
            _reads["unreadable"].inc()
            return Missing.UNAVAILABLE
        _reads["found"].inc()
        return self._keep(key_hash, record, account, began)

    def _keep(self, key_hash: str, record: KeyRecord, account: AccountRecord, read_at: float) -> KnownKey:
        older = self._accounts.get(account.id)
        if older is not None:
            older.replaced = True
        current = self._accounts[account.id] = KnownAccount(record=account, read_at=read_at)
        known = KnownKey(key_hash=key_hash, record=record, account=current, read_at=read_at, confirmed_at=read_at)
        self._keys.put(key_hash, known)
        self._unknown.pop(key_hash)
        return known

    def _nothing_found(self, key_hash: str, *, emptied: bool) -> Missing:
        self._keys.pop(key_hash)
        if emptied:
            _reads["redis_emptied"].inc()
            return Missing.UNAVAILABLE
        _reads["unknown"].inc()
        self._unknown.put(key_hash, self._clock() + UNKNOWN_FOR_SECONDS)
        return Missing.UNKNOWN


_reads = {
    result: metrics.counter(
        "km_gateway_record_reads_total", {"result": result}, help_text="readings of key and account records"
    )
    for result in ("found", "unknown", "redis_emptied", "redis_failed", "unreadable", "account_missing")
}
