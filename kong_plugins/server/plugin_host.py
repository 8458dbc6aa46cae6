"""A worker's plugins, their instances, and the handlers that events are given to."""

import json
import logging
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from kong_plugins.server import logs, metrics
from kong_plugins.server.errors import NoPluginError, PluginLoadError, UnknownInstanceError, WireError
from kong_plugins.server.event_calls import decode_event_call
from kong_plugins.server.handler import Handler, Phase
from kong_plugins.server.instance_files import InstanceFiles, StoredInstance
from kong_plugins.server.pdk import Kong
from kong_plugins.server.registry import PHASES, PLUGIN_UP, PluginModule, PluginSources
from kong_plugins.server.secrets_mask import mask_secrets
from kong_plugins.server.shared_board import SharedBoard

PLUGIN_UP_HELP: Final = "workers that could load the plugin"
KEEP_UNUSED_SECONDS: Final = 600.0
RETRY_BROKEN_SECONDS: Final = 1.0
_ID_ATTEMPTS: Final = 1000


@dataclass(slots=True)
class _SharedPlugin:
    """A plugin object that all instances with the same configuration use."""

    plugin: object
    users: set[int]
    unused_since: float


class PluginHost:
    def __init__(
        self,
        *,
        names: Iterable[str] | None,
        sources: PluginSources,
        files: InstanceFiles,
        board: SharedBoard,
        worker: int,
        first_id: int,
        touch_seconds: float,
    ) -> None:
        self._files = files
        self._board = board
        self._worker = worker
        self._first_id = first_id
        self._touch_seconds = touch_seconds
        self._seen = board.generation()
        self._shared: dict[tuple[str, str], _SharedPlugin] = {}
        self._handlers: dict[bytes, Handler] = {}
        self._broken: dict[int, float] = {}
        self.modules = _load_all(names, sources)
        self.limiter = logs.Limiter()

    def handler(self, call: bytes) -> Handler:
        """Return what runs an event, by its encoded instance and phase.

        Raises UnknownInstanceError. An instance whose plugin cannot be made here gets a handler that raises,
        so that its events fail closed; it is tried again a second later.
        """
        generation = self._board.generation()
        if generation != self._seen:
            self._seen = generation
            self._forget_removed()
        found = self._handlers.get(call)
        return found if found is not None else self._new_handler(call)

    def command(self, call: dict[str, Any]) -> dict[str, Any]:
        """Carry out a call that is no event and return the fields of its answer.

        Raises PluginLoadError, UnknownInstanceError or OSError where it has to be refused, WireError where
        there is no such call.
        """
        if "cmd_start_instance" in call:
            values = call["cmd_start_instance"]
            plugin = values.get("name", "")
            instance_id = self.start_instance(plugin, values.get("config", b""))
            status = {"name": plugin, "instance_id": instance_id, "started_at": int(time.time())}
            return {"instance_status": status}
        if "cmd_close_instance" in call:
            instance_id = call["cmd_close_instance"].get("instance_id", 0)
            self.close_instance(instance_id)
            return {"instance_status": {"instance_id": instance_id}}
        if "cmd_get_instance_status" in call:
            instance_id = call["cmd_get_instance_status"].get("instance_id", 0)
            return {"instance_status": {"name": self._stored(instance_id).plugin, "instance_id": instance_id}}
        if "cmd_get_plugin_names" in call:
            return {"plugin_names": {"names": [name for name, module in self.modules.items() if module]}}
        if "cmd_get_plugin_info" in call:
            return {"plugin_info": self._module(call["cmd_get_plugin_info"].get("name", "")).info()}
        raise WireError("a call of no known kind")

    def start_instance(self, plugin: str, config: bytes) -> int:
        """Check a configuration by making the plugin with it, and return the id of the new instance.

        Raises PluginLoadError where that fails and OSError where it cannot be stored: nothing is kept then.
        """
        stored = StoredInstance(plugin, config)
        shared = self._plugin(stored)
        for _ in range(_ID_ATTEMPTS):
            number = self._board.slots[self._worker].take_number()
            instance_id = self._first_id + number * len(self._board.slots) + self._worker
            try:
                self._files.write(instance_id, stored)
            except FileExistsError:
                continue
            shared.users.add(instance_id)
            return instance_id
        raise OSError("no free instance id")

    def close_instance(self, instance_id: int) -> None:
        self._files.remove(instance_id)
        self._board.instances_changed(self._worker)

    def touch(self, handler: Handler, now: float) -> None:
        """Note, every few minutes, that the instance is in use."""
        handler.touch_at = now + self._touch_seconds
        self._files.touch(handler.instance_id)

    def drop_unused(self, now: float) -> None:
        """Let go of plugin objects that no instance has used for ten minutes."""
        for key, shared in list(self._shared.items()):
            if shared.users:
                shared.unused_since = now
            elif now - shared.unused_since > KEEP_UNUSED_SECONDS:
                del self._shared[key]

    def _new_handler(self, call: bytes) -> Handler:
        instance_id, phase = decode_event_call(call)
        stored = self._stored(instance_id)
        try:
            run = self._method(instance_id, stored, phase)
        except PluginLoadError as error:
            self.limiter.log(logging.ERROR, ("make", stored.plugin), "plugin cannot be used", error=error)
            return Handler(instance_id=instance_id, plugin=stored.plugin, phase=phase, run=_raiser(error))
        module = self._module(stored.plugin)
        handler = Handler(
            instance_id=instance_id,
            plugin=stored.plugin,
            phase=phase,
            run=run,
            defers=not module.waits_for_kong,
            style=module.style,
        )
        self._handlers[call] = handler
        return handler

    def _forget_removed(self) -> None:
        living = self._files.ids()
        self._handlers = {
            call: handler for call, handler in self._handlers.items() if handler.instance_id in living
        }
        for shared in self._shared.values():
            shared.users &= living

    def _stored(self, instance_id: int) -> StoredInstance:
        stored = self._files.read(instance_id)
        if stored is None:
            raise UnknownInstanceError(f"no plugin instance {instance_id}")
        return stored

    def _method(self, instance_id: int, stored: StoredInstance, phase: str) -> Phase:
        retry_at = self._broken.get(instance_id, 0.0)
        if time.monotonic() < retry_at:
            raise PluginLoadError(f"{stored.plugin} cannot be made with its configuration")
        try:
            shared = self._plugin(stored)
        except PluginLoadError:
            self._broken[instance_id] = time.monotonic() + RETRY_BROKEN_SECONDS
            raise
        self._broken.pop(instance_id, None)
        shared.users.add(instance_id)
        method: Phase | None = getattr(shared.plugin, phase, None) if phase in PHASES else None
        if method is None:
            raise PluginLoadError(f"{stored.plugin} has no phase {phase}")
        return method

    def _plugin(self, stored: StoredInstance) -> _SharedPlugin:
        module = self._module(stored.plugin)
        try:
            config = _own_fields(json.loads(stored.config or b"{}"))
        except (ValueError, AttributeError) as error:
            raise PluginLoadError(f"{stored.plugin} was sent a configuration that is no JSON object") from error
        key = (stored.plugin, json.dumps(config, sort_keys=True))
        shared = self._shared.get(key)
        if shared is None:
            plugin = _make(module, config)
            shared = self._shared[key] = _SharedPlugin(plugin, set(), time.monotonic())
        return shared

    def _module(self, plugin: str) -> PluginModule:
        module = self.modules.get(plugin)
        if module is None:
            raise PluginLoadError(f"{plugin} is not served here")
        return module


def _own_fields(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration without Kong's bookkeeping (`__seq__` and so on), which differs by push."""
    return {name: value for name, value in config.items() if not name.startswith("__")}


def _make(module: PluginModule, config: dict[str, Any]) -> object:
    try:
        return module.plugin_class(config)
    except Exception as error:
        reason = mask_secrets(str(error), config=config, schema=module.schema)
        raise PluginLoadError(
            f"{module.name} refuses its configuration: {type(error).__name__}: {reason}"
        ) from error


def _load_all(names: Iterable[str] | None, sources: PluginSources) -> dict[str, PluginModule | None]:
    """Load the plugins of these names, or all there are; then a file that is no plugin is none of them."""
    modules, started = {}, set[object]()
    for name in sources.names() if names is None else names:
        try:
            modules[name] = _load(name, sources, started, was_asked_for=names is not None)
        except NoPluginError:
            logs.log(logging.INFO, "file is no plugin", plugin=name)
    return modules


def _load(name: str, sources: PluginSources, started: set[object], *, was_asked_for: bool) -> PluginModule | None:
    """Import a plugin and run its start hook; None, logged and shown in the metrics, where that fails.

    A hook that several plugins have in common runs once; where it fails it is tried for each of them.
    """
    try:
        module = sources.load(name)
        start = module.hook("start_worker")
        if start is not None and start not in started:
            start()
            started.add(start)
    except (Exception, SystemExit) as error:
        if isinstance(error, NoPluginError) and not was_asked_for:
            raise
        cause = error.__cause__ or error
        reason = mask_secrets(str(cause), config=os.environ, schema={})
        logs.log(logging.ERROR, "plugin cannot be served", plugin=name, detail=reason, error=cause)
        module = None
    metrics.gauge(PLUGIN_UP, {"plugin": name}, help_text=PLUGIN_UP_HELP).set(module is not None)
    return module


def _raiser(error: PluginLoadError) -> Phase:
    def fail(_kong: Kong) -> object:
        raise error

    return fail
