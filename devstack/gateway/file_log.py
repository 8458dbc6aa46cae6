"""Kong's bundled `file-log`, with the one privacy expression and no other Lua."""

import logging
import os
from collections.abc import Mapping
from typing import Any

from devstack.gateway.exchange import Exchange, to_json
from devstack.gateway.schema import Fields, process_record
from gateway_contract.file_log import (
    EXPRESSION_KEY,
    REPLAY_FIELD,
    UNIT_FIELD_PREFIX,
    LoggedHeaders,
    parse_privacy_expression,
)

NAME = "file-log"
PRIORITY = 9
SCHEMA: Fields = [
    {
        "path": {
            "type": "string",
            "required": True,
            "match": r"^[^*&%%\`]+$",
            "err": "not a valid filename",
        }
    },
    {"reopen": {"type": "boolean", "required": True, "default": False}},
    {
        "custom_fields_by_lua": {
            "type": "map",
            "keys": {"type": "string", "len_min": 1},
            "values": {"type": "string", "len_min": 1},
        }
    },
]
_ONLY_THIS = (
    "the local gateway runs no Lua: it accepts exactly one entry, 'request.headers', with the privacy"
    " expression (without it file-log writes usable API keys)"
)
_REMOVED = ("request.querystring", "request.uri", "request.url", "upstream_uri", "response.headers", "tries")

logger = logging.getLogger("gateway.file_log")


def complete_config(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config with its defaults, and the errors by field."""
    complete, errors = process_record(SCHEMA, config)
    if "custom_fields_by_lua" not in errors:
        entries = complete["custom_fields_by_lua"] or {}
        expression = entries.get(EXPRESSION_KEY)
        if len(entries) != 1 or expression is None or parse_privacy_expression(expression) is None:
            errors["custom_fields_by_lua"] = _ONLY_THIS
    return complete, errors


class FileLog:
    """Open files by path, as a worker of Kong keeps them."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self.failed_writes = 0

    def log(self, exchange: Exchange, config: Mapping[str, Any]) -> None:
        """Append the line of a finished request in one write. Like Kong, it does not fail when the disk does."""
        apply_privacy_expression(exchange, config["custom_fields_by_lua"][EXPRESSION_KEY])
        line = to_json(exchange.serialize()) + b"\n"
        try:
            written = os.write(self._file(config["path"], reopen=config["reopen"]), line)
        except OSError as error:
            written = 0
            logger.error("cannot write %s: %s", config["path"], error)  # noqa: TRY400 - no news in a traceback
        if written != len(line):
            self.failed_writes += 1

    def close(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def _file(self, path: str, *, reopen: bool) -> int:
        if reopen and path in self._files:
            os.close(self._files.pop(path))
        if path not in self._files:
            self._files[path] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        return self._files[path]


def apply_privacy_expression(exchange: Exchange, expression: str) -> None:
    """Do what the expression says in Lua. It stays in force for every later plugin of this request, as in Kong."""
    logged = parse_privacy_expression(expression) or LoggedHeaders()
    values = exchange.serialize_values
    values.extend((name, None) for name in _REMOVED)
    values.append(("path", exchange.path))
    values.append(("km_receipt", exchange.headers.get("x-km-receipt")))
    values.append(("km_receipt_out", exchange.response_headers.get("x-km-receipt")))
    for dimension, header in logged.units.items():
        values.append((UNIT_FIELD_PREFIX + dimension, exchange.response_headers.get(header)))
    if logged.replay:
        found = (exchange.response_headers.get(header) for header in logged.replay)
        values.append((REPLAY_FIELD, next((value for value in found if value is not None), None)))
    values.append((EXPRESSION_KEY, None))
