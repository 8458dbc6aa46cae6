"""Log lines as JSON on stderr, which Kong takes over into its own log.

No line ever holds an API key. An exception is logged by type and place, without its message, because a message
may quote a header or a configured secret; failures of this package, whose texts are written for logs, and the
operating system's keep theirs. A full pipe drops lines and counts them: it must never stop a worker.
"""

import json
import logging
import os
import select
import sys
import time
import traceback
from types import TracebackType
from typing import Any, Final

from gateway_contract.api_keys import redact_api_keys
from kong_plugins.server import metrics
from kong_plugins.server.errors import PluginServerError

LEVELS: Final = ("debug", "info", "warning", "error")
STDERR: Final = 2
MAX_LINE_BYTES: Final = 16_384

# bound before gevent replaces it: the handler must not switch greenlets in the middle of a line
_poll = select.poll
_logger = logging.getLogger("km-pluginserver")
_dropped = metrics.counter("km_pluginserver_log_lines_dropped_total", help_text="log lines stderr had no room for")


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "ts": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "msg": record.getMessage(),
        }
        entry.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[1] is not None:
            entry |= describe_exception(record.exc_info[1])
        return redact_api_keys(json.dumps(entry, default=str))


class StderrHandler(logging.Handler):
    """Writes each line in one go, or not at all."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode("utf-8", "backslashreplace")[:MAX_LINE_BYTES] + b"\n"
            poll = _poll()
            poll.register(STDERR, select.POLLOUT)
            if poll.poll(0):
                os.write(STDERR, line)
            else:
                _dropped.inc()
        except Exception:  # noqa: BLE001 - a log line must not end what it speaks of
            _dropped.inc()


def set_up(level: str) -> None:
    """Send every logger's lines through the one handler."""
    handler = StderrHandler()
    handler.setFormatter(JsonFormatter())
    handler.addFilter(PluginLines())
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level.upper())
    logging.raiseExceptions = False
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    sys.unraisablehook = _log_unraisable


def log(level: int, message: str, *, error: BaseException | None = None, **fields: object) -> None:
    """Log one message; its fields become keys of the line."""
    _logger.log(level, message, exc_info=error, extra={"fields": fields})


class Limiter:
    """Lets few lines of a kind through, so that a fault at every request does not fill the disk."""

    def __init__(self, *, lines: int = 5, seconds: float = 10.0) -> None:
        self._lines = lines
        self._seconds = seconds
        self._windows: dict[object, list[float]] = {}

    def log(
        self, level: int, key: object, message: str, *, error: BaseException | None = None, **fields: object
    ) -> None:
        """Log unless the key has had its lines; the next line let through says how many were not."""
        suppressed = self.admit(key)
        if suppressed is not None:
            log(level, message, error=error, **(fields | {"suppressed": suppressed} if suppressed else fields))

    def admit(self, key: object) -> int | None:
        """Return None where the key has had its lines, else how many were kept back before this one."""
        now = time.monotonic()
        window = self._windows.get(key)
        suppressed = 0
        if window is None or now - window[0] > self._seconds:
            if window is not None:
                suppressed = max(0, int(window[1]) - self._lines)
            if len(self._windows) > 1000:  # noqa: PLR2004 - a bound, so that odd keys cannot fill memory
                self._windows.clear()
            window = self._windows[key] = [now, 0]
        window[1] += 1
        return suppressed if window[1] <= self._lines else None


class PluginLines(logging.Filter):
    """The same for what plugins and libraries log, by the place in their code; this package limits itself."""

    def __init__(self) -> None:
        super().__init__()
        self._limiter = Limiter()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == _logger.name:
            return True
        suppressed = self._limiter.admit((record.pathname, record.lineno))
        if suppressed:
            record.fields = {"suppressed": suppressed}
        return suppressed is not None


def describe_exception(error: BaseException) -> dict[str, Any]:
    """Return an exception's type and stack without its message, and so for what caused it."""
    described: dict[str, Any] = {"error": type(error).__qualname__}
    if isinstance(error, PluginServerError | OSError):
        described["reason"] = str(error)
    described["stack"] = [
        f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
    ]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and cause is not error:
        described["cause"] = type(cause).__qualname__
    return described


def _log_uncaught(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    log(logging.CRITICAL, "the process ends on an exception", error=error)


def _log_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    log(logging.ERROR, "an exception could not be raised", error=unraisable.exc_value)


def log_greenlet_failure(_context: object, _kind: object, error: BaseException, _trace: object) -> None:
    """Takes the place of gevent's own report, which prints the message too."""
    log(logging.ERROR, "a greenlet ended on an exception", error=error)
