"""What is added to events for those who read them: subscription, plan and how long the event is kept.

It comes from the account records in Redis, as they stand when the event is collected; a bounded cache in the
process keeps them for a minute. It is never a ground for billing, so it is left empty rather than waited for.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import structlog

from control_plane.foundation.redis import RedisClient
from control_plane.usage import metrics
from control_plane.usage.retention import retention_days
from gateway_contract.redis_names import account_record

log = structlog.get_logger(__name__)

CACHE_SECONDS = 60.0
MAX_ACCOUNTS = 20_000
TIMEOUT_SECONDS = 0.5
# after a failure batches go without for so long: a Redis that hangs must not slow every batch
PAUSE_SECONDS = 5.0
RECORDS_PER_TRIP = 2_000


class Grant(NamedTuple):
    """What an account had of one product: '' and 0 where nothing is known."""

    subscription_id: str = ""
    plan: str = ""
    plan_version: int = 0


Grants = Mapping[str, Grant]
"""Grants by product code."""

NO_GRANT = Grant()
_NO_GRANTS: Grants = {}


class _GrantPart(msgspec.Struct, gc=False):
    subscription_id: str = ""
    plan: str = ""
    plan_version: int = 0


class _RecordPart(msgspec.Struct, gc=False):
    """The part of an account record that is wanted here; the whole takes twenty times as long to read."""

    products: dict[str, _GrantPart] = {}


_decoder = msgspec.json.Decoder(_RecordPart)


class AccountCache:
    """Grants of accounts, read from Redis where they are not known or older than a minute.

    What is missing in Redis is remembered as missing for as long. Of more than `limit` accounts those that were
    read longest ago are forgotten.
    """

    def __init__(
        self,
        redis: RedisClient,
        *,
        limit: int = MAX_ACCOUNTS,
        timeout_seconds: float = TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`redis` must answer in bytes; `clock` is in seconds and never goes back."""
        self._redis = redis
        self._limit = limit
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._known: dict[str, tuple[float, Grants]] = {}
        self._resume_at = float("-inf")

    def __len__(self) -> int:
        return len(self._known)

    async def grants(self, accounts: Collection[str]) -> dict[str, Grants]:
        """Return the grants of accounts; none of those that Redis does not know or would not tell in time.

        Never raises, and takes `timeout_seconds` at most.
        """
        now = self._clock()
        found: dict[str, Grants] = {}
        missing: list[str] = []
        for account_id in accounts:
            known = self._known.get(account_id)
            if known is not None and known[0] > now:
                found[account_id] = known[1]
            else:
                missing.append(account_id)
        metrics.ENRICHED.labels("cached").inc(len(found))
        if not missing:
            return found
        if now < self._resume_at:
            metrics.ENRICHED.labels("failed").inc(len(missing))
            return found
        try:
            async with asyncio.timeout(self._timeout_seconds):
                read = await self._read(missing)
        except Exception as error:  # noqa: BLE001 - whatever it was, events are stored without
            self._resume_at = now + PAUSE_SECONDS
            metrics.ENRICHED.labels("failed").inc(len(missing))
            log.warning("account records cannot be read; events are stored without", error=repr(error))
            return found
        self._keep(read, until=now + CACHE_SECONDS)
        return found | read

    async def _read(self, accounts: Sequence[str]) -> dict[str, Grants]:
        read: dict[str, Grants] = {}
        for start in range(0, len(accounts), RECORDS_PER_TRIP):
            wanted = accounts[start : start + RECORDS_PER_TRIP]
            async with self._redis.pipeline(transaction=False) as pipeline:
                for account_id in wanted:
                    pipeline.get(account_record(account_id))
                records = await pipeline.execute()
            read |= {account_id: _grants(raw) for account_id, raw in zip(wanted, records, strict=True)}
        return read

    def _keep(self, read: Mapping[str, Grants], *, until: float) -> None:
        for account_id, grants in read.items():
            self._known.pop(account_id, None)  # to the end: the oldest stand first
            self._known[account_id] = (until, grants)
        for account_id in list(self._known)[: max(0, len(self._known) - self._limit)]:
            del self._known[account_id]


def _grants(raw: Any) -> Grants:
    if raw is None:
        metrics.ENRICHED.labels("missing").inc()
        return _NO_GRANTS
    try:
        products = _decoder.decode(raw).products
    except msgspec.MsgspecError:
        metrics.ENRICHED.labels("unreadable").inc()
        return _NO_GRANTS
    metrics.ENRICHED.labels("read").inc()
    return {code: Grant(part.subscription_id, part.plan, part.plan_version) for code, part in products.items()}


class KeptDays:
    """How long events are kept: the installation's days, and what plans promise on top."""

    def __init__(self, *, default_days: int, by_plan: Mapping[tuple[str, int], int] | None = None) -> None:
        """`by_plan` maps plan code and version to days; a plan that is not in it promises nothing of its own."""
        self._default_days = default_days
        self._by_plan = by_plan or {}
        self._longest = max(self._by_plan.values(), default=None)

    def days(self, grant: Grant) -> int:
        """Return how many days an event under this grant is kept at least."""
        promised = self._by_plan.get((grant.plan, grant.plan_version))
        return retention_days(default_days=self._default_days, plan_days=promised)

    def days_if_unknown(self) -> int:
        """Return how long to keep events of an account whose plan is not known: as long as any plan promises."""
        return retention_days(default_days=self._default_days, plan_days=self._longest)


def enrichment_columns(
    accounts: Sequence[str], products: Sequence[str], grants: Mapping[str, Grants], kept: KeptDays
) -> dict[str, Sequence[Any]]:
    """Return the columns to add to events of these accounts and products, row by row."""
    only = products[0] if products else ""
    if products.count(only) == len(products):  # mostly, and then the account alone says it all
        by_account = _added(((account_id, only) for account_id in set(accounts)), grants, kept)
        found = {account_id: row for (account_id, _), row in by_account.items()}
        rows = list(map(found.__getitem__, accounts))
    else:
        subjects = list(zip(accounts, products, strict=True))
        rows = list(map(_added(set(subjects), grants, kept).__getitem__, subjects))
    if not rows:
        return {}
    subscriptions, plans, days = zip(*rows, strict=True)
    return {"subscription_id": subscriptions, "plan": plans, "retention_days": days}


def _added(
    subjects: Iterable[tuple[str, str]], grants: Mapping[str, Grants], kept: KeptDays
) -> dict[tuple[str, str], tuple[str, str, int]]:
    """Return subscription, plan and days to keep by account and product.

    Of one whose record is not known an event is kept as long as any plan promises.
    """
    added: dict[tuple[str, str], tuple[str, str, int]] = {}
    for account_id, product in subjects:
        known = grants.get(account_id)
        grant = known.get(product, NO_GRANT) if known else NO_GRANT
        days = kept.days(grant) if known or not account_id else kept.days_if_unknown()
        added[account_id, product] = (grant.subscription_id, grant.plan, days)
    return added
