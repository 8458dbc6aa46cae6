"""An ordered list of HTTP headers that keeps repeats and the bytes as they came."""

from collections.abc import Iterable, Iterator

TableValue = str | list[str]

# nginx hands at most this many headers to Lua unless told otherwise
DEFAULT_MAX_HEADERS = 100

# meant for one connection only: never passed on, in either direction
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
    }
)


class Headers:
    """Names are looked up without regard to case; order and repeats are kept."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._items = [(name.decode("latin-1").lower(), name, value) for name, value in items]

    def __iter__(self) -> Iterator[tuple[str, bytes, bytes]]:
        """Lower-case name, name as written, value."""
        return iter(self._items)

    def __contains__(self, name: str) -> bool:
        return any(item[0] == name for item in self._items)

    def get(self, name: str) -> str | None:
        """The first value; `name` in any case."""
        wanted = name.lower()
        for lower, _, value in self._items:
            if lower == wanted:
                return text(value)
        return None

    def get_all(self, name: str) -> list[str]:
        wanted = name.lower()
        return [text(value) for lower, _, value in self._items if lower == wanted]

    def append(self, name: bytes, value: bytes) -> None:
        self._items.append((name.decode("latin-1").lower(), name, value))

    def add(self, name: str, value: TableValue) -> None:
        raw = name.encode()
        for one in [value] if isinstance(value, str) else value:
            self._items.append((name.lower(), raw, one.encode()))

    def put(self, name: str, value: TableValue) -> None:
        """Replace every header of that name."""
        self.remove(name)
        self.add(name, value)

    def remove(self, name: str) -> None:
        wanted = name.lower()
        self._items = [item for item in self._items if item[0] != wanted]

    def table(self, max_headers: int = DEFAULT_MAX_HEADERS) -> dict[str, TableValue]:
        """Lower-case name to value; a repeated header is a list. Only the first `max_headers` count."""
        out: dict[str, TableValue] = {}
        for lower, _, raw in self._items[:max_headers]:
            value = text(raw)
            seen = out.get(lower)
            if seen is None:
                out[lower] = value
            elif isinstance(seen, list):
                seen.append(value)
            else:
                out[lower] = [seen, value]
        return out

    def listed(self, name: str) -> set[str]:
        """The comma-separated lower-case tokens of a header such as Connection."""
        return {token.strip().lower() for value in self.get_all(name) for token in value.split(",")} - {""}

    def copy(self) -> "Headers":
        twin = Headers()
        twin._items = list(self._items)
        return twin


def text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
