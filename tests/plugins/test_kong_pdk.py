"""The plugins under kong-pdk's own server (gevent, MsgPack:1), in both of its styles: the same decisions."""

import json
import shutil
from typing import Any

import pytest

from gateway_contract import headers
from gateway_contract.receipts import Place, parse_secrets, verify_receipt
from gateway_contract.records import KeyStatus
from kong_plugins.parts.spool_writer import METER_FILE_NAME
from kong_plugins.plugins import km_key_auth, km_monetize, km_plan_limit, km_usage_meter
from tests.plugins.fakes import PRODUCT, SECRET, FakeKong, Projected
from tests.plugins.test_usage_meter import finished
from tests.server.kong_pdk_server import KongPdkServer

MODULES = (km_monetize, km_key_auth, km_plan_limit, km_usage_meter)


def kong_config(module: Any, **given: Any) -> dict[str, Any]:
    """What Kong sends: what was given, every default, null for the rest, and its own bookkeeping."""
    config = {name: about.get("default") for field in module.Schema for name, about in field.items()}
    return config | {"__key__": "plugins:x", "__seq__": 1, "__plugin_id": "p1", "route_id": "r1"} | given


@pytest.fixture(params=["lua style", "python style"])
def server(request, redis_url, tmp_path):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    for module in MODULES:
        name = module.__name__.rpartition(".")[2].replace("_", "-")
        shutil.copy(module.__file__, plugins / f"{name}.py")
    options = ["--no-lua-style"] if request.param == "python style" else []
    environment = {"KM_REDIS_URL": redis_url, "KM_GATEWAY_SECRET": SECRET, "KM_SPOOL_DIR": str(tmp_path)}
    server = KongPdkServer(tmp_path, plugins, *options, **environment)
    yield server
    server.stop()


def run(server: KongPdkServer, instance: int, phase: str, kong: FakeKong) -> FakeKong:
    server.run(instance, phase, lambda method, arguments: kong.take_call(method, tuple(arguments)))
    return kong


class TestUnderKongPdk:
    def test_decides_and_records_as_under_our_server(self, server, redis_url, tmp_path):
        account = Projected(redis_url)
        monetize = server.start("km-monetize", kong_config(km_monetize, api_product=PRODUCT))
        served = run(server, monetize, "access", FakeKong({"apikey": account.text}))
        receipt = verify_receipt(
            served.upstream[headers.RECEIPT], place=Place.UPSTREAM, secrets=parse_secrets(SECRET)
        )
        assert (receipt.call_number, receipt.account_id) == (1, "acc_1")
        assert run(server, monetize, "access", FakeKong()).code == "no_key"

        kong = FakeKong({"apikey": account.text})
        for name, module in (("km-key-auth", km_key_auth), ("km-plan-limit", km_plan_limit)):
            run(server, server.start(name, kong_config(module, api_product=PRODUCT)), "access", kong)
        assert kong.served
        assert kong.answer[headers.RECEIPT]

        twice = FakeKong({"apikey": [account.text, account.text]})
        assert not run(server, monetize, "access", twice).served
        account.change_key(status=KeyStatus.REVOKED)
        assert run(server, monetize, "access", FakeKong({"apikey": account.text})).code == "key_revoked"
        assert account.counters()["calls"] == 2
        account.close()

        config = kong_config(km_usage_meter, unit_headers={"tokens": "x-tokens"})
        run(server, server.start("km-usage-meter", config), "log", FakeKong(log=json.dumps(finished())))
        assert json.loads((tmp_path / METER_FILE_NAME).read_text())["u"] == {"tokens": "42"}

    def test_covers_lookalikes_of_headers_that_come_as_lists(self, server, redis_url):
        account = Projected(redis_url)
        monetize = server.start("km-monetize", kong_config(km_monetize, api_product=PRODUCT))
        kong = FakeKong({"authorization": f"Bearer {account.text}", "x_km_account": "someone-else"})
        assert run(server, monetize, "access", kong).served
        assert kong.upstream["x_km_account"] == "acc_1"
        account.close()
