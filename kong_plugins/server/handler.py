"""What an event of one instance and phase runs."""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from kong_plugins.server import metrics
from kong_plugins.server.pdk_style import PdkStyle

Phase: TypeAlias = Callable[[Any], object]

EVENTS: Final = "km_pluginserver_events_total"
SECONDS: Final = "km_pluginserver_event_seconds"
EVENTS_HELP: Final = "events by plugin, phase and result (ok, answered, failed, timeout, lost)"
SECONDS_HELP: Final = "seconds an event took, Kong's answers to PDK calls included"

# where a failing plugin must not let the request pass; in the log phase there is nothing left to refuse
PHASES_THAT_ADMIT: Final = frozenset({"certificate", "rewrite", "access", "preread", "response"})


class Handler:
    """What one event of one instance runs, with the metrics it counts into."""

    __slots__ = (
        "admits",
        "answered",
        "defers",
        "instance_id",
        "ok",
        "phase",
        "plugin",
        "run",
        "seconds",
        "style",
        "touch_at",
    )

    def __init__(
        self,
        *,
        instance_id: int,
        plugin: str,
        phase: str,
        run: Phase,
        defers: bool = False,
        style: PdkStyle = PdkStyle.PLAIN,
    ) -> None:
        self.instance_id = instance_id
        self.plugin = plugin
        self.phase = phase
        self.run = run
        self.defers = defers
        self.style = style
        self.admits = phase in PHASES_THAT_ADMIT
        self.touch_at = 0.0
        self.ok = self.count_of("ok")
        self.answered = self.count_of("answered")
        self.seconds = metrics.histogram(SECONDS, {"plugin": plugin, "phase": phase}, help_text=SECONDS_HELP)

    def count_of(self, result: str) -> metrics.Counter:
        labels = {"plugin": self.plugin, "phase": self.phase, "result": result}
        return metrics.counter(EVENTS, labels, help_text=EVENTS_HELP)
