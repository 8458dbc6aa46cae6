"""A gateway as it is run: a process of its own, a real plugin server, a real upstream."""

import json
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from devstack.children import Child, start_child
from devstack.ports import free_port, is_listening
from gateway_contract.file_log import render_privacy_expression

REPOSITORY = Path(__file__).parents[2]
PLUGINS = Path(__file__).with_name("plugins")
DATA = Path(__file__).with_name("data")


def wait_for(condition: Callable[[], Any], *, seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.02)
    return found


def warden(**config: Any) -> dict[str, Any]:
    return {"name": "warden", "config": {"api_product": "weather", **config}}


def file_log(path: Path, *, reopen: bool = True, **unit_headers: str) -> dict[str, Any]:
    fields = {"request.headers": render_privacy_expression(unit_headers)}
    return {"name": "file-log", "config": {"path": str(path), "reopen": reopen, "custom_fields_by_lua": fields}}


@dataclass
class RunningGateway:
    """`python -m devstack.gateway` with the plugin server of this repository, at free ports."""

    directory: Path
    upstream_port: int
    proxy_port: int = field(default_factory=free_port)
    admin_port: int = field(default_factory=free_port)
    options: tuple[str, ...] = ()
    server_options: str = "--workers 1"
    child: Child | None = None
    spool: Path = field(init=False)

    def __post_init__(self) -> None:
        self.spool = self.directory / "usage.log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.proxy_port}"

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def socket_path(self) -> Path:
        return self.directory / "km.sock"

    def configuration(self, *, plugins: Any = None, routes: Any = None, **service: Any) -> str:
        """One service to the sample upstream; by default with the warden and file-log."""
        if plugins is None:
            plugins = [warden(), file_log(self.spool)]
        routes = routes or [{"name": "weather", "paths": ["/weather"]}]
        entity = {"name": "up", "host": "127.0.0.1", "port": self.upstream_port, "routes": routes, **service}
        return yaml.safe_dump({"_format_version": "3.0", "services": [entity], "plugins": plugins})

    def start(self, configuration: str, *, ready_seconds: float = 30.0) -> None:
        (self.directory / "kong.yml").write_text(configuration)
        python = f"{sys.executable} -m kong_plugins.server.main --plugins-dir {PLUGINS}"
        start = f"env PYTHONPATH={REPOSITORY} {python} {self.server_options} --plugins warden,witness"
        lines = [
            "plugins = bundled,warden,witness",
            "pluginserver_names = a,b",
            f"pluginserver_a_socket = {self.socket_path}",
            f"pluginserver_a_start_cmd = {start} --socket {self.socket_path}",
            f"pluginserver_a_query_cmd = {python} --dump warden",
            f"pluginserver_b_socket = {self.socket_path}",
            f"pluginserver_b_query_cmd = {python} --dump witness",
            f"declarative_config = {self.directory / 'kong.yml'}",
            f"proxy_listen = 127.0.0.1:{self.proxy_port}",
            f"admin_listen = 127.0.0.1:{self.admin_port}",
        ]
        (self.directory / "kong.conf").write_text("\n".join(lines))
        self.run(ready_seconds=ready_seconds)

    def run(self, *, ready_seconds: float = 30.0) -> None:
        self.child = start_child(
            [sys.executable, "-m", "devstack.gateway", "--conf", str(self.directory / "kong.conf"), *self.options],
            cwd=REPOSITORY,
            log_path=self.directory / "gateway.log",
        )
        self.child.wait_until(lambda: is_listening(self.admin_port))
        self.child.wait_until(self.plugin_server_listens, timeout_seconds=ready_seconds)

    def plugin_server_listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket_path)) == 0

    def plugin_server_pid(self) -> int | None:
        return httpx.get(self.admin).json()["pluginservers"]["a"]

    def apply(self, configuration: str) -> None:
        assert self.push(configuration).status_code == 201

    def push(self, configuration: str, **options: Any) -> httpx.Response:
        return httpx.post(f"{self.admin}/config", data={"config": configuration}, **options)

    def lines(self) -> list[dict[str, Any]]:
        if not self.spool.exists():
            return []
        return [json.loads(line) for line in self.spool.read_text().splitlines()]

    def log(self) -> str:
        return (self.directory / "gateway.log").read_text()

    def stop(self) -> None:
        if self.child is not None:
            self.child.stop()
