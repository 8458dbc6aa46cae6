"""Kong as a plugin sees it, and records as the control plane writes them."""

import json
import time
from collections.abc import Callable
from typing import Any

import gevent

from devstack.stores.valkey_cluster import open_redis
from gateway_contract import api_keys, headers, redis_names
from gateway_contract.modes import Mode
from gateway_contract.receipts import Place, Receipt, parse_secrets, verify_receipt
from gateway_contract.records import (
    AccountRecord,
    AccountStatus,
    KeyRecord,
    KeyStatus,
    Period,
    ProductGrant,
    Quota,
    RedisDownPolicy,
    Upgrade,
    Window,
    encode_record,
)

PRODUCT = "weather"
SECRET = "a-gateway-secret-of-more-than-32-characters"
HOUR_MS = 3_600_000


class _Name:
    def __init__(self, kong: "FakeKong", name: str) -> None:
        self._kong = kong
        self._name = name

    def __getattr__(self, part: str) -> "_Name":
        return _Name(self._kong, f"{self._name}.{part}")

    def __call__(self, *arguments: Any) -> Any:
        return self._kong.take_call(self._name, arguments)


class FakeKong:
    """Takes down every PDK call of one request, and answers as the real Kong does.

    `exit` does not end the phase here: a plugin that goes on after it is found out by its further calls.
    """

    def __init__(self, headers: dict[str, Any] | None = None, **facts: Any) -> None:
        self.headers = {"host": "api.example.com", **{k.lower(): v for k, v in (headers or {}).items()}}
        self.facts = {"method": "GET", "address": "192.0.2.1", "route": "forecast", "upstreams": (), **facts}
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.shared: dict[str, Any] = {}
        self.upstream: dict[str, str] = {}
        self.answer: dict[str, str] = {}
        self.status: int | None = None
        self.body = b""
        self.consumer: Any = None
        self.sent_to: str | None = None
        self.query_sent: str | None = None

    def __getattr__(self, part: str) -> _Name:
        if part.startswith("_"):
            raise AttributeError(part)
        return _Name(self, f"kong.{part}")

    @property
    def names(self) -> list[str]:
        return [name.removeprefix("kong.") for name, _ in self.calls]

    @property
    def served(self) -> bool:
        return self.status is None

    @property
    def problem(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return "served" if self.served else self.problem["code"]

    def take_call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        assert self.status is None, f"{name} after exit"
        self.calls.append((name, arguments))
        answer = getattr(self, "_" + name.removeprefix("kong.").replace(".", "_"), None)
        return answer(*arguments) if answer is not None else None

    def _request_get_headers(self, maximum: int = 100) -> dict[str, Any]:
        return {**self.headers, **{name.lower(): value for name, value in self.upstream.items()}}

    def _request_get_method(self) -> str:
        return self.facts["method"]

    def _client_get_forwarded_ip(self) -> str:
        return self.facts["address"]

    def _router_get_route(self) -> dict[str, str]:
        return {"name": self.facts["route"]}

    def _client_authenticate(self, consumer: Any, credential: Any) -> None:
        self.consumer = (consumer, credential)

    def _service_set_upstream(self, name: str) -> bool:
        if name in self.facts["upstreams"]:
            self.sent_to = name
        return name in self.facts["upstreams"]

    def _request_get_raw_query(self) -> str:
        return self.facts.get("query", "")

    def _request_get_header(self, name: str) -> str | None:
        value = self.headers.get(name.lower())
        return value[0] if isinstance(value, list) else value

    def _service_request_set_raw_query(self, query: str) -> None:
        self.query_sent = query

    def _service_request_set_headers(self, headers: dict[str, str]) -> None:
        for value in headers.values():
            assert all(isinstance(one, str) for one in (value if isinstance(value, list) else [value]))
        self.upstream.update(headers)

    def _response_set_headers(self, headers: dict[str, str]) -> None:
        assert all(isinstance(value, str) for value in headers.values())
        self.answer.update(headers)

    def _response_exit(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.status, self.body = status, body
        self.answer.update(headers)

    def _nginx_get_var(self, name: str) -> str | None:
        wanted = name.removeprefix("sent_http_").replace("_", "-")
        return next((value for key, value in self.answer.items() if key.lower() == wanted), None)

    def _ctx_shared_set(self, name: str, value: Any) -> None:
        self.shared[name] = value

    def _ctx_shared_get(self, name: str) -> Any:
        return self.shared.get(name)

    def _log_serialize(self) -> Any:
        return self.facts["log"]


def now_ms() -> int:
    return int(time.time() * 1000)


def grant(**changes: Any) -> ProductGrant:
    """A plan of 10 a second and 300 a minute with a hard quota of 1,000."""
    start = now_ms() - HOUR_MS
    values: dict[str, Any] = {
        "subscription_id": "sub_1",
        "plan": "starter",
        "plan_name": "Starter",
        "plan_version": 1,
        "windows": (Window(10, 1000), Window(300, 60_000)),
        "quota": Quota(1000, hard=True),
        "periods": (
            Period(start, start + 720 * HOUR_MS),
            Period(start + 720 * HOUR_MS, start + 1440 * HOUR_MS),
        ),
        "redis_down": RedisDownPolicy.OPEN,
        "upgrade": Upgrade("growth", "Growth", "https://example.com/pricing?plan=growth"),
    }
    return ProductGrant(**{**values, **changes})


class Projected:
    """One account with one key in Redis; `change_*` does what the projector does after a change."""

    def __init__(self, url: str, *, mode: Mode = Mode.LIVE, account: str = "acc_1", **changes: Any) -> None:
        self.client = open_redis(url)
        self.text = api_keys.generate_api_key(mode)
        self.key_hash = api_keys.hash_api_key(self.text)
        self.key = KeyRecord(
            id=f"key_{self.text[-6:]}",
            account_id=account,
            mode=mode,
            status=KeyStatus.ACTIVE,
            version=1,
            **{k: v for k, v in changes.items() if k != "grant"},
        )
        self.account = AccountRecord(
            id=account,
            name="Acme",
            status=AccountStatus.ACTIVE,
            version=1,
            products={PRODUCT: changes.get("grant", grant())},
        )
        self.write()

    def write(self) -> None:
        """Write everything: records before versions, the marker last."""
        self.client.set(redis_names.key_record(self.key_hash), encode_record(self.key))
        self.client.set(redis_names.account_record(self.account.id), encode_record(self.account))
        versions = {"account": self.account.version, self.key.id: self.key.version}
        self.client.hset(redis_names.account_versions(self.account.id), mapping=versions)
        self.client.set(redis_names.projection_marker(redis_names.key_bucket(self.key_hash)), "1")

    def mark_all(self) -> None:
        """Mark every bucket of key records: the projection is complete, so what is missing does not exist."""
        marks = {redis_names.projection_marker(bucket): "1" for bucket in redis_names.KEY_BUCKETS}
        self.client.mset(marks)

    def change_key(self, **changes: Any) -> None:
        values = {name: getattr(self.key, name) for name in KeyRecord.__slots__}
        self.key = KeyRecord(**{**values, "version": self.key.version + 1, **changes})
        self.write()

    def change_account(self, **changes: Any) -> None:
        values = {name: getattr(self.account, name) for name in AccountRecord.__slots__}
        self.account = AccountRecord(**{**values, "version": self.account.version + 1, **changes})
        self.write()

    def counters(self, mode: Mode = Mode.LIVE) -> dict[str, int]:
        """The current period's counters."""
        product = self.account.products[PRODUCT]
        name = redis_names.period_counters(
            self.account.id, product.subscription_id, product.periods[0].start_ms, mode
        )
        return {field.decode(): int(value) for field, value in self.client.hgetall(name).items()}

    def close(self) -> None:
        self.client.close()


def receipt_of(kong: FakeKong) -> Receipt:
    """Return the receipt in the answer."""
    receipt = verify_receipt(kong.answer[headers.RECEIPT], place=Place.ANSWER, secrets=parse_secrets(SECRET))
    assert receipt is not None
    return receipt


def call_number(kong: FakeKong) -> int:
    """Return the number that Redis gave the call, 0 where it did not count it."""
    return receipt_of(kong).call_number


def eventually(check: Callable[[], Any], *, seconds: float = 20.0) -> None:
    """Let other greenlets run until the check holds."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline
        gevent.sleep(0.02)
