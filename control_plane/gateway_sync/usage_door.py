"""The door through which usage leaves Kong: `file-log` into our spool, or `km-usage-meter`. Pure.

Every sold route needs one. Kong runs one `file-log` per request, the most specific, so an operator's own at a
route or a service would shadow ours: that is refused, not worked around.
"""

import posixpath
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from control_plane.foundation.errors import Problem
from control_plane.gateway_sync.base_config import BaseConfig, Plugin, Route
from gateway_contract.file_log import (
    EXPRESSION_KEY,
    parse_privacy_expression,
    render_privacy_expression,
)
from gateway_contract.plugins import USAGE_METER

FILE_LOG = "file-log"


class Door(StrEnum):
    """By which way usage of a route leaves Kong."""

    FILE_LOG = "file-log"
    METER = "km-usage-meter"


def file_log_plugin(path: str, unit_headers: dict[str, str]) -> dict[str, Any]:
    """Return the `file-log` entry that writes usage lines, and no key, to the spool."""
    return {
        "name": FILE_LOG,
        "config": {
            "path": path,
            # so that a renamed file is final as soon as no writer holds it
            "reopen": True,
            "custom_fields_by_lua": {EXPRESSION_KEY: render_privacy_expression(unit_headers)},
        },
    }


def check_spool_writers(base: BaseConfig, path: str | None) -> list[Problem]:
    """Return what is wrong with the operator's `file-log`s that write to our spool, on whatever route."""
    problems = []
    for plugin in base.every_plugin():
        if plugin.name == FILE_LOG and writes_to(plugin, path):
            if plugin.config.get("reopen") is not True:
                problems.append(
                    Problem(f"{plugin.where}.config.reopen", "must be true for the usage spool, or lines get lost")
                )
            if _unit_headers(plugin) is None:
                message = (
                    f"must hold exactly one entry, {EXPRESSION_KEY}, as `km gateway preview` shows it: "
                    "any other form writes API keys to the disk or leaves usage unattributed"
                )
                problems.append(Problem(f"{plugin.where}.config.custom_fields_by_lua", message))
    return problems


def find_door(
    base: BaseConfig, route: Route, *, path: str | None, unit_headers: Mapping[str, str]
) -> Door | Problem | None:
    """Return the usage door that the operator gave the route, None where there is none.

    A Problem where his stands in the way of ours, or does not read the units that the route is billed by.
    """
    file_log = base.effective_plugin(route, FILE_LOG)
    if file_log is not None and writes_to(file_log, path):
        present = _unit_headers(file_log)
        if present is None:
            return Door.FILE_LOG  # reported by check_spool_writers
        where = f"{file_log.where}.config.custom_fields_by_lua"
        return _missing_units(present, route, unit_headers, where=where) or Door.FILE_LOG
    meter = base.effective_plugin(route, USAGE_METER)
    if meter is not None:
        read = meter.config.get("unit_headers")
        where = f"{meter.where}.config.unit_headers"
        return (
            _missing_units(read if isinstance(read, dict) else {}, route, unit_headers, where=where) or Door.METER
        )
    if file_log is None:
        return None
    if path is not None and _unit_headers(file_log) is not None:
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


def _unit_headers(plugin: Plugin) -> dict[str, str] | None:
    fields = plugin.config.get("custom_fields_by_lua")
    if not isinstance(fields, dict) or set(fields) != {EXPRESSION_KEY}:
        return None
    expression = fields[EXPRESSION_KEY]
    read = parse_privacy_expression(expression) if isinstance(expression, str) else None
    return None if read is None else read.units


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
