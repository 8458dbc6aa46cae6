"""The door through which usage leaves Kong: `file-log` into our spool, or `km-usage-meter`. Pure.

Every sold route needs one. Kong runs one `file-log` per request, the most specific, so an operator's own at a
route or a service would shadow ours: that is refused, not worked around.
"""

import posixpath
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any

from control_plane.foundation.errors import Problem
from control_plane.gateway_sync.base_config import BaseConfig, Plugin, Route
from gateway_contract.file_log import (
    EXPRESSION_KEY,
    LoggedHeaders,
    parse_privacy_expression,
    render_privacy_expression,
)
from gateway_contract.headers import DEFAULT_REPLAY_HEADERS
from gateway_contract.plugins import USAGE_METER

FILE_LOG = "file-log"


class Door(StrEnum):
    """By which way usage of a route leaves Kong."""

    FILE_LOG = "file-log"
    METER = "km-usage-meter"


def file_log_plugin(path: str, read: LoggedHeaders) -> dict[str, Any]:
    """Return the `file-log` entry that writes usage lines, and no key, to the spool."""
    return {
        "name": FILE_LOG,
        "config": {
            "path": path,
            # so that a renamed file is final as soon as no writer holds it
            "reopen": True,
            "custom_fields_by_lua": {EXPRESSION_KEY: render_privacy_expression(read.units, read.replay)},
        },
    }


def meter_plugin(read: LoggedHeaders) -> dict[str, Any]:
    """Return the `km-usage-meter` entry for a route on which a plan limits calls at a time: it sees them end."""
    config: dict[str, Any] = {"concurrency": True}
    if read.units:
        config["unit_headers"] = dict(read.units)
    if read.replay != DEFAULT_REPLAY_HEADERS:
        config["replay_headers"] = list(read.replay)
    return {"name": USAGE_METER, "config": config}


def concurrency_problem(base: BaseConfig, route: Route, door: Door | None, *, limited_by: str) -> Problem | None:
    """Return why the operator's door of a route does not tell when calls end, as plan `limited_by` needs it."""
    plugin = base.effective_plugin(route, door.value) if door is not None else None
    if plugin is None or (door is Door.METER and plugin.config.get("concurrency") is True):
        return None
    reason = f"plan {limited_by!r} limits calls at a time, and is sold on route {route.name!r}"
    if door is Door.METER:
        return Problem(f"{plugin.where}.config.concurrency", f"must be true: {reason}")
    return Problem(
        plugin.where,
        f"does not tell when a call ends, but {reason}: attach {USAGE_METER} with concurrency: true to the route "
        "in place of this file-log",
    )


def check_spool_writers(base: BaseConfig, path: str | None) -> list[Problem]:
    """Return what is wrong with the operator's `file-log`s that write to our spool, on whatever route."""
    problems = []
    for plugin in base.every_plugin():
        if plugin.name == FILE_LOG and writes_to(plugin, path):
            if plugin.config.get("reopen") is not True:
                problems.append(
                    Problem(f"{plugin.where}.config.reopen", "must be true for the usage spool, or lines get lost")
                )
            if _logged_headers(plugin) is None:
                message = (
                    f"must hold exactly one entry, {EXPRESSION_KEY}, as `km gateway preview` shows it: "
                    "any other form writes API keys to the disk or leaves usage unattributed"
                )
                problems.append(Problem(f"{plugin.where}.config.custom_fields_by_lua", message))
    return problems


def find_door(base: BaseConfig, route: Route, *, path: str | None, needed: LoggedHeaders) -> Door | Problem | None:
    """Return the usage door that the operator gave the route, None where there is none.

    A Problem where his stands in the way of ours, or does not read what the route is billed by.
    """
    file_log = base.effective_plugin(route, FILE_LOG)
    if file_log is not None and writes_to(file_log, path):
        present = _logged_headers(file_log)
        if present is None:
            return Door.FILE_LOG  # reported by check_spool_writers
        where = f"{file_log.where}.config.custom_fields_by_lua"
        return (
            _missing_units(present.units, route, needed.units, where=where)
            or _missing_replay(present.replay, route, needed.replay, where=where)
            or Door.FILE_LOG
        )
    meter = base.effective_plugin(route, USAGE_METER)
    if meter is not None:
        read, where = _metered_headers(meter), f"{meter.where}.config"
        return (
            _missing_units(read.units, route, needed.units, where=f"{where}.unit_headers")
            or _missing_replay(read.replay, route, needed.replay, where=f"{where}.replay_headers")
            or Door.METER
        )
    if file_log is None:
        return None
    if path is not None and _logged_headers(file_log) is not None:
        own = file_log.config.get("path")
        message = (
            f"writes usage to {own!r}, but the usage spool is {path!r} (KM_USAGE_SPOOL_PATH): make them equal"
        )
        return Problem(f"{file_log.where}.config.path", message)
    return Problem(
        file_log.where,
        f"this file-log takes the place of the one that writes usage of route {route.name!r}: Kong runs only one "
        f"per request. Attach {USAGE_METER} to the route, or log to another plugin, such as http-log",
    )


def writes_to(plugin: Plugin, path: str | None) -> bool:
    """Say whether a `file-log` writes to the given file."""
    own = plugin.config.get("path")
    return path is not None and isinstance(own, str) and posixpath.normpath(own) == posixpath.normpath(path)


def _logged_headers(plugin: Plugin) -> LoggedHeaders | None:
    fields = plugin.config.get("custom_fields_by_lua")
    if not isinstance(fields, dict) or set(fields) != {EXPRESSION_KEY}:
        return None
    expression = fields[EXPRESSION_KEY]
    return parse_privacy_expression(expression) if isinstance(expression, str) else None


def _metered_headers(plugin: Plugin) -> LoggedHeaders:
    units, replay = plugin.config.get("unit_headers"), plugin.config.get("replay_headers")
    return LoggedHeaders(
        units=units if isinstance(units, dict) else {},
        replay=tuple(map(str, replay)) if isinstance(replay, list) else DEFAULT_REPLAY_HEADERS,
    )


def _missing_units(
    present: Mapping[str, str], route: Route, wanted: Mapping[str, str], *, where: str
) -> Problem | None:
    missing = {name: header for name, header in wanted.items() if str(present.get(name)).lower() != header.lower()}
    if not missing:
        return None
    listed = ", ".join(f"{name} from {header}" for name, header in sorted(missing.items()))
    return Problem(
        where,
        f"does not read units that route {route.name!r} is billed by: {listed}. Add them, or remove this plugin: "
        "`km gateway preview` then shows the file-log that is added in its place",
    )


def _missing_replay(
    present: Collection[str], route: Route, wanted: Collection[str], *, where: str
) -> Problem | None:
    missing = sorted(set(wanted).difference(header.lower() for header in present))
    if not missing:
        return None
    return Problem(
        where,
        f"does not read {', '.join(missing)}, by which the upstream of route {route.name!r} says that it repeated "
        "an answer: such calls would be billed again. Add it, or remove this plugin: `km gateway preview` then "
        "shows the file-log that is added in its place",
    )
