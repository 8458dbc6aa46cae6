"""Structured logs: one JSON object a line on stderr, with every API key blotted out."""

import logging
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from gateway_contract.api_keys import redact_api_keys

# libraries that write down every request of theirs with its whole address
TALKATIVE = ("httpx", "stripe")


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace API keys in every text of a log entry, however deep."""
    return {redact_api_keys(name): _redact_value(value) for name, value in event.items()}


def configure_logging(*, level: str = "INFO", as_json: bool = True) -> None:
    """Send structlog's and the standard library's entries through one redacting chain to stderr."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer(default=str) if as_json else structlog.dev.ConsoleRenderer(colors=False)
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, redact, renderer],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _redact_value(value: Any) -> Any:
    if isinstance(value, str):
        return redact_api_keys(value)
    if isinstance(value, dict):
        return {_redact_value(name): _redact_value(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redact_value(inner) for inner in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact_api_keys(str(value))
