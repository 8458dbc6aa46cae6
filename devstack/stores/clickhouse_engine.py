"""The embedded ClickHouse (chDB) behind the HTTP interface: statements of many threads, each by itself."""

import re
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import chdb

BAD_ARGUMENTS = 36
_UNKNOWN_EXCEPTION = 1002
_INSERT = re.compile(r"\s*(INSERT\s+INTO\s.*)\sFORMAT\s+(\w+)\s*", re.IGNORECASE | re.DOTALL)
_CODE = re.compile(r"Code: (\d+)\.")
_NAME = re.compile(r"[A-Za-z_]\w*")


class QueryError(Exception):
    """What a client is told, with ClickHouse's code for it."""

    def __init__(self, message: str, code: int = BAD_ARGUMENTS) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement as it came; `data` are the rows of an insert in the format that the statement names."""

    text: str
    parameters: Mapping[str, str]
    settings: Mapping[str, str]
    database: str
    data: bytes = b""


class Engine:
    """The embedded ClickHouse. Any number of threads may ask; each statement has a connection to itself.

    Connections are kept apart by database and settings, since both belong to a connection of chDB.
    """

    def __init__(self, directory: Path, *, memory_mb: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._spool = tempfile.TemporaryDirectory(dir=directory.parent)
        self._address = f"{directory}?max_server_memory_usage={memory_mb * 1024 * 1024}"
        self._idle: dict[Any, list[Any]] = {}
        self._lock = threading.Lock()
        # held until the end: the engine goes with its last connection
        self._first = chdb.connect(self._address)

    def close(self) -> None:
        with self._lock:
            idle = [connection for kept in self._idle.values() for connection in kept]
            self._idle.clear()
        for connection in [*idle, self._first]:
            connection.close()
        self._spool.cleanup()

    def run(self, statement: Statement) -> tuple[bytes, dict[str, str]]:
        """Return the answer's body and what was read.

        Raises:
            QueryError: ClickHouse refused it.
        """
        with self._connection(statement) as connection:
            try:
                if statement.data:
                    result = self._insert(connection, statement)
                else:
                    result = connection.query(statement.text, "TabSeparated", params=dict(statement.parameters))
            except Exception as error:
                raise as_query_error(error) from error
        rows, size = str(result.rows_read()), str(result.bytes_read())
        written = {"written_rows": rows, "written_bytes": size} if statement.data else {}
        return result.bytes() or b"", {"read_rows": rows, "read_bytes": size, **written}

    def _insert(self, connection: Any, statement: Statement) -> Any:
        # the one way to hand rows over that takes every format, bytes and all
        found = _INSERT.fullmatch(statement.text)
        if found is None:
            raise QueryError("a body with rows needs an INSERT ... FORMAT before it")
        with tempfile.NamedTemporaryFile(dir=self._spool.name) as file:
            file.write(statement.data)
            file.flush()
            text = f"{found[1]} FROM INFILE '{file.name}' FORMAT {found[2]}"
            return connection.query(text, "TabSeparated", params=dict(statement.parameters))

    @contextmanager
    def _connection(self, statement: Statement) -> Iterator[Any]:
        key = (statement.database, tuple(sorted(statement.settings.items())))
        with self._lock:
            kept = self._idle.setdefault(key, [])
            connection = kept.pop() if kept else None
        if connection is None:
            connection = self._connect(statement)
        yield connection
        with self._lock:
            self._idle.setdefault(key, []).append(connection)

    def _connect(self, statement: Statement) -> Any:
        connection = chdb.connect(self._address)
        try:
            if statement.database:
                name = statement.database.replace("`", "\\`")
                connection.query(f"USE `{name}`")
            for name, value in statement.settings.items():
                if not _NAME.fullmatch(name):
                    raise QueryError(f"no setting is called {name!r}")  # noqa: TRY301 - one place closes
                literal = value.replace("\\", "\\\\").replace("'", "\\'")
                connection.query(f"SET {name} = '{literal}'")
        except Exception as error:
            connection.close()
            raise as_query_error(error) from error
        return connection


def as_query_error(error: Exception) -> QueryError:
    """Return chDB's error with the code that its text names."""
    if isinstance(error, QueryError):
        return error
    found = _CODE.search(str(error))
    return QueryError(str(error), int(found[1]) if found else _UNKNOWN_EXCEPTION)
