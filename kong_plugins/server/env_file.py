"""A file of NAME=VALUE lines that goes into the environment of the plugins.

Kong shows the server's start command in its Admin API and keeps it in a file under its prefix: a secret does not
belong there. A file only its user can read is the place for it.
"""

import logging
import os
import re
import stat
from pathlib import Path
from typing import Final

from kong_plugins.server import logs
from kong_plugins.server.errors import PluginServerError

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class EnvFileError(PluginServerError):
    """The file cannot be read or has a line that is no NAME=VALUE; the text never quotes a line."""


def load_env_file(path: Path) -> None:
    """Set what the file names and the environment does not have yet; raises EnvFileError."""
    try:
        text = path.read_text(encoding="utf-8")
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8"
        raise EnvFileError(f"{path} cannot be read: {reason}") from None
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        logs.log(logging.WARNING, "everyone can read or write the file of secrets", path=str(path))
    for name, value in parse_env_file(text, path):
        os.environ.setdefault(name, value)


def parse_env_file(text: str, path: Path) -> list[tuple[str, str]]:
    """Return names and values, as they are; empty lines and those that begin with # say nothing."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, separator, value = stripped.partition("=")
        if not separator or _NAME.fullmatch(name) is None:
            raise EnvFileError(f"{path}, line {number}: NAME=VALUE is expected")
        found.append((name, value))
    return found
