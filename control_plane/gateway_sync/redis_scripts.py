"""The Lua scripts of this feature, loaded from their files and run in one trip, on one server or a cluster."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Any, TypeVar

from redis.exceptions import NoScriptError

from control_plane.foundation.redis import RedisClient, is_cluster
from gateway_contract.redis_names import slot_of

LUA_DIRECTORY = Path(__file__).with_name("lua")

Item = TypeVar("Item")
Argument = str | bytes | int


class Script:
    """One script, of one file or several, on one client. A run may be repeated: it must bear being run twice."""

    def __init__(self, client: RedisClient, *names: str) -> None:
        self._client = client
        self._text = "\n".join(lua_source(name) for name in names)
        self._sha = sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, *, keys: Sequence[str], args: Sequence[Argument]) -> Any:
        """Run once and return the answer. In a cluster all keys lie in one slot."""
        return (await self.run_each([(keys, args)]))[0]

    async def run_each(self, calls: Iterable[tuple[Sequence[str], Sequence[Argument]]]) -> list[Any]:
        """Run for each (keys, args), all in one trip; return the answers. Each run is atomic, the trip is not."""
        commands = [(self._sha, len(keys), *keys, *args) for keys, args in calls]
        if not commands:
            return []
        try:
            return await self._send(commands)
        except NoScriptError:
            await self._client.script_load(self._text)
            return await self._send(commands)

    async def _send(self, commands: Iterable[tuple[Argument, ...]]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command("EVALSHA", *command)
            answers: list[Any] = await pipeline.execute()
        return answers


def together(
    client: RedisClient, items: Iterable[Item], name_of: Callable[[Item], str], *, most: int
) -> Iterator[Sequence[Item]]:
    """Yield the items in groups of at most `most` that one script may touch: in a cluster, those of one slot.

    Items of one name stay in order.
    """
    if not is_cluster(client):
        yield from _chunks(list(items), most)
        return
    by_slot: dict[int, list[Item]] = {}
    for item in items:
        by_slot.setdefault(slot_of(name_of(item)), []).append(item)
    for group in by_slot.values():
        yield from _chunks(group, most)


@cache
def lua_source(name: str) -> str:
    """Return the text of `lua/<name>.lua`."""
    return (LUA_DIRECTORY / f"{name}.lua").read_text(encoding="utf-8")


def _chunks(items: Sequence[Item], most: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), most):
        yield items[start : start + most]
