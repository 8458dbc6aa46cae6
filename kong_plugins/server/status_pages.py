"""What /healthz, /readyz and /metrics say."""

import json
from collections.abc import Callable
from typing import Any, Final

from kong_plugins.server import metrics
from kong_plugins.server.exposition import CONTENT_TYPE, Totals, add, read_slot, render
from kong_plugins.server.instance_files import InstanceFiles
from kong_plugins.server.registry import PLUGIN_UP
from kong_plugins.server.shared_board import SharedBoard
from kong_plugins.server.status_server import Page

_JSON: Final = "application/json"
_workers = metrics.gauge("km_pluginserver_workers", help_text="workers whose heart beats")
_instances = metrics.gauge("km_pluginserver_instances", help_text="plugin instances Kong has started")
_connections = metrics.gauge("km_pluginserver_connections", help_text="connections of Kong's now open")


class StatusPages:
    def __init__(
        self, board: SharedBoard, files: InstanceFiles, retired: Totals, wedged_after_seconds: float
    ) -> None:
        self._board = board
        self._files = files
        self._retired = retired
        self._wedged_after_seconds = wedged_after_seconds
        self.published = False
        self.stopping = False

    def by_path(self) -> dict[str, Callable[[], Page]]:
        return {"/healthz": self.health, "/readyz": self.readiness, "/metrics": self.metrics}

    def health(self) -> Page:
        """The master lives. Workers come and go, and it sees to them."""
        return Page("200 OK", _JSON, json.dumps({"status": "ok"}).encode())

    def readiness(self) -> Page:
        """Ready: the socket is in its place, a worker's heart beats and every plugin could be loaded."""
        ages = self._beating()
        plugins = self._plugins()
        ready = self.published and not self.stopping and any(ages) and all(plugins.values())
        body: dict[str, Any] = {
            "status": "ready" if ready else "not ready",
            "socket": "stopping" if self.stopping else "open" if self.published else "waiting",
            "workers": {"beating": sum(ages), "of": len(ages)},
            "plugins": {name: "loaded" if up else "failed" for name, up in sorted(plugins.items())},
        }
        return Page("200 OK" if ready else "503 Service Unavailable", _JSON, json.dumps(body).encode())

    def metrics(self) -> Page:
        _workers.set(sum(self._beating()))
        _instances.set(len(self._files.ids()))
        _connections.set(sum(slot.connections for slot in self._board.slots))
        return Page("200 OK", CONTENT_TYPE, render(self._totals()))

    def _totals(self) -> Totals:
        totals: Totals = {}
        add(totals, metrics.own_series(), gauges=True)
        add(totals, self._retired, gauges=True)
        for slot in self._board.slots:
            add(totals, read_slot(slot), gauges=True)
        return totals

    def _beating(self) -> list[bool]:
        ages = [slot.heartbeat_age_seconds for slot in self._board.slots]
        return [age is not None and age <= self._wedged_after_seconds for age in ages]

    def _plugins(self) -> dict[str, bool]:
        """Return for each plugin whether all started workers could load it."""
        up: dict[str, bool] = {}
        for slot in self._board.slots:
            for series, values in read_slot(slot).items():
                if series.name == PLUGIN_UP:
                    name = dict(series.labels)["plugin"]
                    up[name] = up.get(name, True) and bool(values[0])
        return up
