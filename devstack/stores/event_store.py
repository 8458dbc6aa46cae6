"""The embedded event store: chDB, which runs inside the process that owns its directory."""

from pathlib import Path
from urllib.parse import quote, urlencode


def event_store_dsn(directory: Path, *, database: str | None = None) -> str:
    """`chdb:///DIR[?database=NAME]`. One process may open the directory at a time, and must not fork then."""
    address = f"chdb://{quote(str(directory.absolute()))}"
    return address if database is None else f"{address}?{urlencode({'database': database})}"
