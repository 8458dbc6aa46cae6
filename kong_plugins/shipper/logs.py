"""Structured logs: one JSON object a line on stderr, without API keys and without passwords of URLs."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from gateway_contract.api_keys import redact_api_keys

_URL_USER = re.compile(r"://[^@/\s]+@")


def configure_logs(*, level: str) -> None:
    """Set up structlog for this process; `level` is a name of the logging module, in either case."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _redact,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def redact_text(text: str) -> str:
    """Strike out API keys and the user part of URLs."""
    return _URL_USER.sub("://[redacted]@", redact_api_keys(text))


def _redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = redact_text(value)
    return event
