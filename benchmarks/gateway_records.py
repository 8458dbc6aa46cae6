"""Key and account records for the gateway's benchmarks, written as the projector writes them."""

import time

import redis

from gateway_contract import api_keys, redis_names
from gateway_contract.modes import Mode
from gateway_contract.records import (
    AccountRecord,
    AccountStatus,
    KeyRecord,
    KeyStatus,
    Period,
    ProductGrant,
    Quota,
    Window,
    encode_record,
)

PRODUCT = "weather"
DAY_MS = 86_400_000
ROOMY = (Window(1_000_000, 1000), Window(50_000_000, 60_000))


def account_record(number: int, windows: tuple[Window, ...] = ROOMY) -> AccountRecord:
    """An account with one subscription that began a day ago and ends far away."""
    now = int(time.time() * 1000)
    grant = ProductGrant(
        subscription_id=f"sub_{number:026}",
        plan="growth",
        plan_name="Growth",
        plan_version=1,
        windows=windows,
        quota=Quota(10**12, hard=True),
        periods=(Period(now - DAY_MS, now + 30 * DAY_MS), Period(now + 30 * DAY_MS, now + 60 * DAY_MS)),
    )
    return AccountRecord(f"acc_{number:026}", "Acme", AccountStatus.ACTIVE, 1, {PRODUCT: grant})


def key_record(number: int, account_id: str) -> KeyRecord:
    return KeyRecord(
        id=f"key_{number:026}", account_id=account_id, mode=Mode.LIVE, status=KeyStatus.ACTIVE, version=1
    )


def write_records(url: str, count: int, *, first: int = 0, windows: tuple[Window, ...] = ROOMY) -> list[str]:
    """Write that many accounts with a key each and return the keys."""
    texts = [api_keys.generate_api_key(Mode.LIVE) for _ in range(count)]
    with redis.Redis.from_url(url) as client, client.pipeline(transaction=False) as pipe:
        for number, text in enumerate(texts, start=first):
            account = account_record(number, windows)
            key = key_record(number, account.id)
            key_hash = api_keys.hash_api_key(text)
            pipe.set(redis_names.key_record(key_hash), encode_record(key))
            pipe.set(redis_names.projection_marker(redis_names.key_bucket(key_hash)), "1")
            pipe.set(redis_names.account_record(account.id), encode_record(account))
            pipe.hset(redis_names.account_versions(account.id), mapping={"account": 1, key.id: 1})
        pipe.execute()
    return texts
