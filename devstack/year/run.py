"""Runs a whole year: opens the control plane on given stores, plays, reads, compares."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from devstack.year.held import Held, read_held
from devstack.year.model import END, START, Story
from devstack.year.play import Played, Told, play
from devstack.year.reconcile import Reconciliation, reconcile
from devstack.year.stories import STORIES
from devstack.year.world import World, open_world


@dataclass(frozen=True, slots=True)
class Year:
    """A year that was played, and how it compares."""

    stories: Sequence[Story]
    played: Played
    held: Held
    found: Reconciliation


async def run_year(
    *,
    database_url: str,
    redis_url: str,
    clickhouse_dsn: str,
    stories: Sequence[Story] = STORIES,
    until: datetime = END,
    told: Told = lambda _: None,
) -> Year:
    """Play the year on a migrated, empty database, an empty Redis and an empty event store."""
    async with open_world(
        database_url=database_url, redis_url=redis_url, clickhouse_dsn=clickhouse_dsn, now=START
    ) as world:
        played = await play(world, stories, until=until, told=told)
        return await compared(world, stories, played)


async def compared(world: World, stories: Sequence[Story], played: Played) -> Year:
    """Return what the product holds now, compared with what it should hold."""
    held = await read_held(world, {known["account"]: known.get("sub") for known in played.known.values()})
    return Year(stories, played, held, reconcile(stories, played, held))
