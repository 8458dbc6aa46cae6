"""kong-pdk's own server, and Kong's MsgPack:1 client for it: what Kong 3.9 sends and does with what comes back."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack

ROOT = Path(__file__).parents[2]
SERVER = "from kong_pdk.cli import start_server; start_server()"
MULTI_MAPS = {
    "kong.request.get_headers",
    "kong.request.get_query",
    "kong.response.get_headers",
    "kong.service.response.get_headers",
}
RAW = {"kong.request.get_raw_body", "kong.service.response.get_raw_body"}
TERMINAL = {"kong.response.exit", "kong.response.error"}


class KongPdkServer:
    def __init__(self, directory: Path, plugins: Path, *options: str, **environment: str) -> None:
        self.path = directory / "pdk.sock"
        self.log = directory / "pdk.log"
        arguments = ["-g", "-p", str(directory), "-d", str(plugins), "--socket-name", self.path.name, *options]
        env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{plugins}"} | environment
        with self.log.open("wb") as log:
            command = [sys.executable, "-W", "ignore", "-c", SERVER, *arguments]
            self.process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        # the path is there a moment before anybody listens
        while self.socket.connect_ex(str(self.path)):
            assert time.monotonic() < deadline, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        self.unpacker = msgpack.Unpacker()

    def ask(self, method: str, argument: object) -> Any:
        self.socket.sendall(msgpack.packb([0, 1, method, [argument]]))
        while True:
            for _, _, error, result in self.unpacker:
                assert error is None, error
                return result
            self.unpacker.feed(self.socket.recv(65536))

    def start(self, name: str, config: dict[str, Any]) -> int:
        return self.ask("plugin.StartInstance", {"Name": name, "Config": json.dumps(config)})["Id"]

    def run(self, instance: int, phase: str, answer: Callable[[str, list[Any]], Any]) -> None:
        """One event: answer the plugin's calls, in Kong's shapes, until it ends or has answered the caller."""
        result = self.ask("plugin.HandleEvent", {"InstanceId": instance, "EventName": phase})
        while result["Data"] != "ret":
            method, arguments = result["Data"]["Method"], list(result["Data"]["Args"])
            value = answer(method, arguments)
            if method in TERMINAL:
                break
            step = {"EventId": result["EventId"], "Data": _as_kong_packs(method, value)}
            result = self.ask("plugin.Step", step)

    def stop(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(30)


def _as_kong_packs(method: str, value: Any) -> Any:
    if method in MULTI_MAPS:
        value = value or {}
        return {name: [one] if isinstance(one, str) else [] if one is True else one for name, one in value.items()}
    if method in RAW and isinstance(value, str):
        return value.encode()
    return value
