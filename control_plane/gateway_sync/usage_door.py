"""The door through which usage leaves Kong: `file-log` into our spool, or `km-usage-meter`. Pure.

Every sold route needs one. Kong runs one `file-log` per request, the most specific, so an operator's own at a
route or a service would shadow ours: that is refused, not worked around.
"""

import posixpath
from collections.abc import Mapping
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
) -> bool | Problem:
    """Say whether the operator gave the route a usage door; a Problem where his stands in the way of ours."""
    file_log = base.effective_plugin(route, FILE_LOG)
    if file_log is not None and writes_to(file_log, path):
        return _missing_units(file_log, route, unit_headers) or True
    if base.effective_plugin(route, USAGE_METER) is not None:
        return True
    if file_log is None:
        return False
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
    return parse_privacy_expression(expression) if isinstance(expression, str) else None


def _missing_units(plugin: Plugin, route: Route, wanted: Mapping[str, str]) -> Problem | None:
    present = _unit_headers(plugin)
    if present is None:
        return None  # reported by check_spool_writers
    missing = {name: header for name, header in wanted.items() if present.get(name) != header.lower()}
    if not missing:
        return None
    listed = ", ".join(f"{name} from {header}" for name, header in sorted(missing.items()))
    return Problem(
        f"{plugin.where}.config.custom_fields_by_lua",
        f"does not read units that route {route.name!r} is billed by: {listed}. Take over the expression that "
        "`km gateway preview` shows, or remove this file-log and ours is added",
    )
