"""km-usage-meter: writes one usage line for each finished request, for gateways that cannot use file-log."""

import json
import logging
import os
from pathlib import Path
from typing import Any

from gateway_contract import plugins
from kong_plugins.parts.in_flight import release_ended_call
from kong_plugins.parts.kong_request import plain
from kong_plugins.parts.line_values import UnreadableLineError
from kong_plugins.parts.plugin_config import read_meter_config
from kong_plugins.parts.plugin_schema import UNIT_FIELDS
from kong_plugins.parts.settings import SettingsError, read_settings
from kong_plugins.parts.spool_writer import SpoolWriteError, SpoolWriter
from kong_plugins.parts.usage_lines import build_usage_line
from kong_plugins.parts.worker import current_worker
from kong_plugins.server import metrics

log = logging.getLogger(__name__)

version = "0.1.0"
priority = plugins.PRIORITIES[plugins.USAGE_METER]
waits_for_kong = False
Schema = UNIT_FIELDS

_lines = {
    result: metrics.counter("km_gateway_usage_lines_total", {"result": result}, help_text="finished requests")
    for result in ("written", "unreadable", "not_written")
}


class Plugin:
    """One attachment. One PDK call for each request; served, refused or broken off."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = read_meter_config(config)
        self._writer = SpoolWriter(_spool_directory())
        if self._config.concurrency:
            read_settings()  # what a gateway needs is missed here, not at the first call that ends

    def log(self, kong: Any) -> None:
        """Append the line. What cannot be written is counted and said; the caller has long been answered."""
        record = plain(kong.log.serialize())
        try:
            if isinstance(record, str | bytes):
                record = _decoded(record)
            self._writer.append(
                build_usage_line(
                    record,
                    unit_headers=self._config.unit_headers,
                    replay_headers=self._config.replay_headers,
                )
            )
        except UnreadableLineError:
            _lines["unreadable"].inc()
            log.exception("a request's log cannot be read")
        except SpoolWriteError:
            _lines["not_written"].inc()
            log.exception("a usage line could not be written")
        else:
            _lines["written"].inc()
        if self._config.concurrency and isinstance(record, dict):
            worker = current_worker()
            release_ended_call(worker.link, record, secrets=worker.settings.secrets)


def _decoded(text: str | bytes) -> dict[str, Any]:
    """Return the log as Kong means it; it sends an empty text where it could not make JSON of it."""
    try:
        record = json.loads(text)
    except ValueError:
        raise UnreadableLineError("JSON") from None
    if not isinstance(record, dict):
        raise UnreadableLineError("JSON object")
    return record


def _spool_directory() -> Path:
    text = os.environ.get("KM_SPOOL_DIR", "").strip()
    if not text:
        raise SettingsError("KM_SPOOL_DIR is not set")
    return Path(text)
