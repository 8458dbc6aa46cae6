"""Looks for API keys where none may be: files, tables, Redis, events."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import redis
from psycopg import sql

from devstack.soak.cluster_causes import primaries
from devstack.stack import Stack
from devstack.stack_layout import DATABASE

PIECE_BYTES = 4 * 1024 * 1024
# of a key's 38 random characters; a key cut off behind so many of them is found, too
TELLING_LENGTH = 24
_WORD = re.compile(rb"[0-9A-Za-z]{%d,}" % TELLING_LENGTH)


class KeySearch:
    """Knows the keys and notes every place where one can be read, whole or but for its end."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._wanted = {text.rpartition("_")[2][:TELLING_LENGTH].encode() for text in texts}
        self.found: list[str] = []
        self.searched_bytes = 0

    def look_at(self, data: bytes, place: str) -> bool:
        """Say, and note, whether the data holds a key."""
        self.searched_bytes += len(data)
        wanted = self._wanted
        held = any(
            word[start : start + TELLING_LENGTH] in wanted
            for word in _WORD.findall(data)
            for start in range(len(word) - TELLING_LENGTH + 1)
        )
        if held:
            self.found.append(place)
        return held

    def look_at_stack(self, stack: Stack) -> None:
        """Search all files of the stack, all rows of its database, and all of Redis. Blocks for seconds."""
        for directory in {stack.data_dir, stack.database_dir}:
            for path in sorted(directory.rglob("*")):
                if path.is_file() and not path.is_symlink():
                    self._look_at_file(path)
        for name, text in _rows_of_tables(stack):
            self.look_at(text, f"table {name}")
        for client in primaries(stack):
            # without it long values would be packed in a dump
            client.config_set("rdbcompression", "no")
            for name in client.scan_iter(count=500):
                self.look_at(_dump(client, name), f"Redis {name!r}")

    def _look_at_file(self, path: Path) -> None:
        kept = b""
        with path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                if self.look_at(kept + piece, str(path)):
                    return
                kept = piece[-2 * TELLING_LENGTH :]


def _rows_of_tables(stack: Stack) -> Iterator[tuple[str, bytes]]:
    """Yield each row of each table as text: in the files long values are compressed."""
    dsn = f"host=127.0.0.1 port={stack.ports.postgres} user=postgres dbname={DATABASE}"
    with psycopg.connect(dsn) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (name,) in names:
            query = sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(name))
            for (text,) in connection.execute(query):
                yield name, text.encode()


def _dump(client: redis.Redis, name: bytes) -> bytes:
    """Return a value with all that it holds; numbers apart, its strings stand in a dump as they are."""
    value: Any = client.get(name) if client.type(name) == b"string" else client.dump(name)
    return name + (value or b"")
