"""The four plugins over the real wire: local gateway, plugin server, upstream, each a process of its own."""

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml

from devstack.children import start_child
from devstack.ports import free_port, is_listening
from devstack.stores.valkey import EmbeddedValkey
from gateway_contract import api_keys, headers, plugins
from gateway_contract.modes import Mode
from gateway_contract.receipts import Place, parse_secrets, verify_receipt
from gateway_contract.records import Concurrency, KeyStatus, Window
from kong_plugins.parts.spool_writer import METER_FILE_NAME
from tests.devstack.support import wait_for
from tests.plugins.fakes import PRODUCT, SECRET, Projected, grant

ROOT = Path(__file__).parents[2]
SECRETS = parse_secrets(SECRET)
FALLBACK = api_keys.generate_api_key(Mode.LIVE)
METER = {"name": plugins.USAGE_METER, "config": {"concurrency": True}}
ATTACHED: dict[str, dict[str, dict]] = {
    "plain": {plugins.MONETIZE: {}},
    "pair": {plugins.KEY_AUTH: {}, plugins.PLAN_LIMIT: {}},
    "twice": {plugins.MONETIZE: {}, plugins.PLAN_LIMIT: {}},
    "query": {plugins.MONETIZE: {"key_query": ["apikey"], "imported_keys": True}},
    "anonymous": {plugins.MONETIZE: {"anonymous": api_keys.hash_api_key(FALLBACK)}},
    "scoped": {plugins.MONETIZE: {"scopes": ["reports"], "method_scopes": {"POST": ["reports", "write"]}}},
}


class Gateway:
    def __init__(self, url: str, spool: Path, redis_url: str) -> None:
        self.url, self.redis_url = url, redis_url
        self.spool_file = spool / METER_FILE_NAME
        self._seen = 0

    def get(self, route: str, key: str | None = None, **sent: str) -> httpx.Response:
        given = {"apikey": key, **sent} if key else sent
        return httpx.get(f"{self.url}/{route}/v1/echo", headers=given)

    def new_lines(self) -> list[dict]:
        lines = self.spool_file.read_text().splitlines() if self.spool_file.exists() else []
        new, self._seen = lines[self._seen :], len(lines)
        return [json.loads(line) for line in new]


def write_conf(directory: Path, *, upstream: int, proxy: int, admin: int, redis_url: str) -> Path:
    routes = [
        {
            "name": name,
            "paths": [f"/{name}"],
            "plugins": [
                {"name": plugin, "config": {"api_product": PRODUCT, **config}}
                for plugin, config in attached.items()
            ],
        }
        for name, attached in ATTACHED.items()
    ]
    service = {"name": "up", "host": "127.0.0.1", "port": upstream, "routes": routes}
    document = {"_format_version": "3.0", "services": [service], "plugins": [METER]}
    (directory / "kong.yml").write_text(yaml.safe_dump(document))
    server = f"{sys.executable} -m kong_plugins.server.main"
    place = directory / "km.sock"
    names = {plugin: plugin.replace("-", "_") for plugin in plugins.ALL}
    environment = f"PYTHONPATH={ROOT} KM_REDIS_URL={redis_url} KM_GATEWAY_SECRET={SECRET} KM_SPOOL_DIR={directory}"
    lines = [
        f"plugins = bundled,{','.join(plugins.ALL)}",
        f"pluginserver_names = {','.join(names.values())}",
        f"pluginserver_{names[plugins.MONETIZE]}_start_cmd = env {environment} {server} --socket {place}",
        f"declarative_config = {directory / 'kong.yml'}",
        f"proxy_listen = 127.0.0.1:{proxy}",
        f"admin_listen = 127.0.0.1:{admin}",
    ]
    for plugin, name in names.items():
        lines.append(f"pluginserver_{name}_socket = {place}")
        lines.append(f"pluginserver_{name}_query_cmd = env PYTHONPATH={ROOT} {server} --dump {plugin}")
    (directory / "kong.conf").write_text("\n".join(lines))
    return directory / "kong.conf"


@pytest.fixture(scope="module")
def gateway(valkey_server: EmbeddedValkey) -> Iterator[Gateway]:
    ports = {"upstream": free_port(), "proxy": free_port(), "admin": free_port()}
    with tempfile.TemporaryDirectory(prefix="km-plugins-") as name:
        directory = Path(name)
        conf = write_conf(directory, redis_url=valkey_server.url, **ports)
        commands = {
            "upstream": ["-m", "devstack.upstream", "--port", str(ports["upstream"])],
            "admin": ["-m", "devstack.gateway", "--conf", str(conf)],
        }
        running = Gateway(f"http://127.0.0.1:{ports['proxy']}", directory, valkey_server.url)
        with contextlib.ExitStack() as stack:
            for port, command in commands.items():
                child = start_child([sys.executable, *command], cwd=ROOT, log_path=directory / f"{port}.log")
                stack.callback(child.stop)
                child.wait_until(lambda port=port: is_listening(ports[port]))
            child.wait_until(lambda: running.get("plain").status_code == 401)
            yield running


@pytest.fixture
def account(gateway: Gateway, redis_url: str) -> Iterator[Projected]:
    projected = Projected(redis_url, grant=grant(windows=(Window(3, 60_000),)))
    gateway.new_lines()
    yield projected
    projected.close()


def receipt_in(text: str, place: Place):
    return verify_receipt(text, place=place, secrets=SECRETS)


@pytest.mark.parametrize("route", ["plain", "pair", "twice"])
class TestThroughTheGateway:
    def test_a_call_is_admitted_told_and_written_once(self, gateway, account, route):
        answer = gateway.get(route, account.text, **{headers.RECEIPT: "mine", headers.ACCOUNT: "acc_other"})
        assert answer.status_code == 200
        seen = {name.lower(): value for name, value in dict(answer.json()["headers"]).items()}
        assert seen["apikey"] == headers.REDACTED
        assert seen[headers.ACCOUNT.lower()] == "acc_1"
        upstream = receipt_in(seen[headers.RECEIPT.lower()], Place.UPSTREAM)
        assert receipt_in(answer.headers[headers.RECEIPT], Place.ANSWER) == upstream
        assert upstream.call_number == account.counters()["calls"] == 1
        assert answer.headers[headers.REMAINING] == "2"
        (line,) = self.lines(gateway, 1)
        assert receipt_in(line["ru"], Place.UPSTREAM) == receipt_in(line["ra"], Place.ANSWER) == upstream
        assert line["id"] == answer.headers["x-kong-request-id"]

    def test_limits_and_revocation_hold(self, gateway, account, route):
        statuses = [gateway.get(route, account.text).status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        account.change_key(status=KeyStatus.REVOKED)
        refused = gateway.get(route, account.text)
        assert (refused.status_code, refused.json()["code"]) == (401, "key_revoked")
        assert refused.headers["content-type"] == "application/problem+json"
        lines = self.lines(gateway, 5)
        outcomes = [receipt_in(line["ra"], Place.ANSWER).outcome.value for line in lines]
        assert sorted(outcomes) == ["key_revoked", "rate_limited", "served", "served", "served"]
        assert account.text not in gateway.spool_file.read_text()

    def test_nobody_passes_without_a_key_or_on_a_stolen_receipt(self, gateway, account, route):
        earlier = gateway.get(route, account.text)
        leaked = {name.lower(): value for name, value in dict(earlier.json()["headers"]).items()}
        stolen = {headers.RECEIPT: leaked[headers.RECEIPT.lower()]}
        assert [gateway.get(route, **sent).status_code for sent in ({}, stolen)] == [401, 401]
        mistyped = account.text[:-1] + ("y" if account.text.endswith("x") else "x")
        assert gateway.get(route, mistyped).json()["code"] == "malformed_key"

    def test_a_test_key_never_reaches_the_upstream(self, gateway, redis_url, route):
        account = Projected(redis_url, mode=Mode.TEST)
        answer = gateway.get(route, account.text)
        assert (answer.status_code, answer.json()["code"]) == (403, "no_sandbox")
        account.close()

    def lines(self, gateway: Gateway, count: int) -> list[dict]:
        """The log phase runs after the answer: wait for its lines."""
        found: list[dict] = []

        def enough() -> bool:
            found.extend(gateway.new_lines())
            return len(found) >= count

        wait_for(enough)
        assert len(found) == count
        return found


def headers_seen(answer: httpx.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in dict(answer.json()["headers"]).items()}


class TestCallsInFlight:
    @pytest.fixture
    def one_at_a_time(self, gateway, account):
        allowed = grant(windows=(), concurrency=Concurrency(1, 600_000))
        account.change_account(products={PRODUCT: allowed})
        return account

    def slow(self, gateway, account, *, milliseconds, **options):
        url = f"{gateway.url}/plain/v1/slow?ms={milliseconds}"
        return httpx.get(url, headers={"apikey": account.text}, **options)

    def test_make_room_when_they_end(self, gateway, one_at_a_time):
        with ThreadPoolExecutor() as threads:
            first = threads.submit(self.slow, gateway, one_at_a_time, milliseconds=3000)
            wait_for(one_at_a_time.counters)
            refused = gateway.get("plain", one_at_a_time.text)
            assert (refused.status_code, refused.json()["limit"]["name"]) == (429, "concurrent")
            assert first.result().status_code == 200
        wait_for(lambda: gateway.get("plain", one_at_a_time.text).status_code == 200)

    def test_make_room_when_the_caller_hangs_up(self, gateway, one_at_a_time):
        with pytest.raises(httpx.ReadTimeout):
            self.slow(gateway, one_at_a_time, milliseconds=3000, timeout=0.3)
        wait_for(lambda: gateway.get("plain", one_at_a_time.text).status_code == 200)


class TestFindingTheKey:
    def test_in_the_query_hides_it_and_leaves_the_rest_as_it_was(self, gateway, account):
        query = f"city=S%C3%A3o+Paulo&%61pikey={account.text}&flag&&x=%7e"
        answer = httpx.get(f"{gateway.url}/query/v1/echo?{query}")
        assert answer.status_code == 200
        assert answer.json()["query"] == "city=S%C3%A3o+Paulo&flag&&x=%7e"
        assert account.text not in answer.text
        alone = httpx.get(f"{gateway.url}/query/v1/echo?apikey={account.text}")
        assert alone.json()["query"] == ""
        twice = httpx.get(f"{gateway.url}/query/v1/echo?apikey={account.text}&apikey=x")
        assert (twice.status_code, twice.json()["code"]) == (401, "ambiguous_key")
        assert account.text not in gateway.spool_file.read_text()

    def test_takes_an_imported_key_as_a_bearer_token(self, gateway, account):
        account.text, account.key_hash = "legacy/key+1", api_keys.hash_api_key("legacy/key+1")
        account.write()
        sent = {"authorization": "Bearer legacy/key+1"}
        answer = gateway.get("query", **sent)
        assert answer.status_code == 200
        assert headers_seen(answer)["authorization"] == headers.REDACTED
        assert gateway.get("plain", **sent).json()["code"] == "no_key"

    def test_hides_keys_wherever_else_they_stand(self, gateway, account):
        other = api_keys.generate_api_key(Mode.LIVE)
        answer = gateway.get("plain", account.text, cookie=f"old={other}", **{"x-token": f"Token {other}"})
        assert answer.status_code == 200
        assert other not in answer.text
        assert headers_seen(answer)["cookie"] == "old=km_live_[redacted]"


class TestAnonymousCall:
    def test_is_served_under_the_fallback_key_and_told_apart(self, gateway, account):
        keyed = gateway.get("anonymous", account.text, **{headers.ANONYMOUS: "true"})
        assert headers_seen(keyed)[headers.ANONYMOUS.lower()] == "false"
        account.text, account.key_hash = FALLBACK, api_keys.hash_api_key(FALLBACK)
        account.write()
        answer = gateway.get("anonymous")
        assert answer.status_code == 200
        assert headers_seen(answer)[headers.ANONYMOUS.lower()] == "true"
        receipt = receipt_in(answer.headers[headers.RECEIPT], Place.ANSWER)
        assert (receipt.outcome.value, receipt.key_id) == ("served", account.key.id)
        assert gateway.get("anonymous", "wrong").status_code == 401


class TestScopes:
    def test_are_asked_for_by_route_and_method(self, gateway, account):
        account.change_key(scopes=("reports",))
        assert gateway.get("scoped", account.text).status_code == 200
        refused = httpx.post(f"{gateway.url}/scoped/v1/echo", headers={"apikey": account.text})
        assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
        assert 'scope="reports write"' in refused.headers["www-authenticate"]


class TestLanguage:
    @pytest.mark.parametrize("route", ["plain", "pair"])
    def test_of_refusals_is_the_callers(self, gateway, account, route):
        sent = {"accept-language": "de-DE, en;q=0.5"}
        refused = gateway.get(route, **sent)
        assert refused.json()["title"] == "API-Schlüssel erforderlich"
        for _ in range(4):
            refused = gateway.get(route, account.text, **sent)
        assert refused.json()["detail"] == "Das Limit per-minute erlaubt 3 in 60 s."
        assert refused.headers["content-language"] == "de"
        assert refused.headers["vary"] == "Accept-Language"
