"""The plugins under kong-pdk's own server (gevent, MsgPack:1): same plugin, same decisions."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgpack
import pytest

from gateway_contract import headers
from gateway_contract.receipts import Place, parse_secrets, verify_receipt
from gateway_contract.records import KeyStatus
from kong_plugins.parts.spool_writer import METER_FILE_NAME
from kong_plugins.plugins import km_key_auth, km_monetize, km_plan_limit, km_usage_meter
from tests.plugins.fakes import PRODUCT, SECRET, FakeKong, Projected
from tests.plugins.test_usage_meter import finished

ROOT = Path(__file__).parents[2]
MODULES = (km_monetize, km_key_auth, km_plan_limit, km_usage_meter)
SERVER = "from kong_pdk.cli import start_server; start_server()"


class PdkServer:
    """Speaks to kong-pdk's server as Kong's MsgPack client does."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(str(path))
        self.unpacker = msgpack.Unpacker()

    def ask(self, method: str, argument: object) -> object:
        self.socket.sendall(msgpack.packb([0, 1, method, [argument]]))
        while True:
            for _, _, error, result in self.unpacker:
                assert error is None, error
                return result
            self.unpacker.feed(self.socket.recv(65536))

    def start(self, name: str, config: dict) -> int:
        return self.ask("plugin.StartInstance", {"Name": name, "Config": json.dumps(config)})["Id"]

    def run(self, instance: int, phase: str, kong: FakeKong) -> FakeKong:
        """One event: answer the plugin's calls from `kong` until it ends or has answered the caller."""
        result = self.ask("plugin.HandleEvent", {"InstanceId": instance, "EventName": phase})
        while result["Data"] != "ret":
            method, arguments = result["Data"]["Method"], result["Data"]["Args"]
            answer = kong.take_call(method, tuple(arguments))
            if method == "kong.response.exit":
                break
            result = self.ask("plugin.Step", {"EventId": result["EventId"], "Data": answer})
        return kong


@pytest.fixture(params=["lua style", "python style"])
def server(request, redis_url, tmp_path):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    for module in MODULES:
        name = module.__name__.rpartition(".")[2].replace("_", "-")
        shutil.copy(module.__file__, plugins / f"{name}.py")
    options = ["-g", "-p", str(tmp_path), "-d", str(plugins), "--socket-name", "pdk.sock"]
    if request.param == "python style":
        options.append("--no-lua-style")
    environment = os.environ | {
        "KM_REDIS_URL": redis_url,
        "KM_GATEWAY_SECRET": SECRET,
        "KM_SPOOL_DIR": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }
    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-W", "ignore", "-c", SERVER, *options]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    deadline = time.monotonic() + 30
    while not (tmp_path / "pdk.sock").exists():
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        assert process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.05)
    client = PdkServer(tmp_path / "pdk.sock")
    yield client
    client.socket.close()
    process.terminate()
    process.wait(30)


class TestUnderKongPdk:
    def test_decides_and_records_as_under_our_server(self, server, redis_url, tmp_path):
        account = Projected(redis_url)
        config = {"api_product": PRODUCT}
        monetize = server.start("km-monetize", config)
        served = server.run(monetize, "access", FakeKong({"apikey": account.text}))
        receipt = verify_receipt(
            served.upstream[headers.RECEIPT], place=Place.UPSTREAM, secrets=parse_secrets(SECRET)
        )
        assert (receipt.call_number, receipt.account_id) == (1, "acc_1")
        assert server.run(monetize, "access", FakeKong()).code == "no_key"

        kong = FakeKong({"apikey": account.text})
        for name in ("km-key-auth", "km-plan-limit"):
            server.run(server.start(name, config), "access", kong)
        assert kong.served
        assert kong.answer[headers.RECEIPT]

        account.change_key(status=KeyStatus.REVOKED)
        assert server.run(monetize, "access", FakeKong({"apikey": account.text})).code == "key_revoked"
        assert account.counters()["calls"] == 2
        account.close()

        meter = server.start("km-usage-meter", {"unit_headers": {"tokens": "x-tokens"}})
        server.run(meter, "log", FakeKong(log=json.dumps(finished())))
        assert json.loads((tmp_path / METER_FILE_NAME).read_text())["u"] == {"tokens": "42"}
