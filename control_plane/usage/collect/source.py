"""What the collector asks of whatever brings it entries: a Redis Stream, a Kafka topic."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from control_plane.usage.collect.entries import SegmentKey

# Entry ids with their fields (`gateway_contract.usage_lines`). Ids are opaque bytes, unique in the source.
Entries = Sequence[tuple[bytes, Mapping[bytes, bytes]]]


class SourceEmptiedError(Exception):
    """The source lost everything, or nobody ever read it: `begin` has to be called before the next read."""


@dataclass(frozen=True, slots=True)
class SourceLag:
    """What is not acknowledged: entries in all, those that somebody was given, age of the oldest (or 0)."""

    entries: int
    pending: int
    oldest_age_seconds: float


class UsageSource(Protocol):
    """One consumer of one part of what shippers ship (a shard, some partitions). Used by one collector at a time.

    A source keeps these promises; the counts are exact because of them:

    - *At least once.* An entry that was added is given to somebody, and again (to `read` or `claim` of any
      consumer) for as long as it is not acknowledged: after its consumer died, after a restart, after a rebalance.
      It may come twice, at any time and to two consumers; nothing depends on that.
    - *In order of adding* for what one consumer reads of one shipper, but for entries that come again. A
      collector reads, works off and acknowledges one batch before it reads the next.
    - *Nothing vanishes unseen.* When entries may have been lost, the next `read` raises `SourceEmptiedError`
      (Redis came back empty), or the shipper finds out by itself and ships again from its published position.
    - `holds_all_before` never says yes while an entry before these is on its way to somebody else.

    Every method may raise whatever its client raises when the source is away; the collector waits and tries again.
    """

    @property
    def name(self) -> str:
        """What logs and metrics call this source (`0` for shard 0)."""
        ...

    async def read(self, *, count: int, wait_ms: int) -> Entries:
        """Return up to `count` entries that nobody was given, after `wait_ms` at the latest.

        Raises:
            SourceEmptiedError.
        """
        ...

    async def claim(self, *, count: int, idle_ms: int) -> Entries:
        """Take over up to `count` entries that were given to somebody at least `idle_ms` ago.

        Always empty where the source hands entries of the dead to `read` by itself. Fields are None or empty for
        an entry that was deleted meanwhile.

        Raises:
            SourceEmptiedError.
        """
        ...

    async def holds_all_before(self, ids: Sequence[bytes]) -> bool:
        """Say whether all entries up to the last of `ids` are acknowledged, or among `ids` and still ours.

        Then what their shippers say to have shipped has been collected as well. False where it cannot be known.
        """
        ...

    async def acknowledge(self, ids: Sequence[bytes]) -> None:
        """Have these never given to anybody again, and deleted if nobody else wants them. Idempotent."""
        ...

    async def begin(self, positions: Mapping[SegmentKey, int]) -> None:
        """Start (or start anew) at the first entry there is; `positions` are published before anything is read."""
        ...

    async def publish(self, positions: Mapping[SegmentKey, int]) -> None:
        """Tell shippers how far their segments are committed, those of this source at least."""
        ...

    async def forget(self, segments: Collection[SegmentKey]) -> None:
        """Publish positions of these segments no longer."""
        ...

    async def tidy(self) -> None:
        """Remove what consumers that are gone for long have left, without losing an entry."""
        ...

    async def lag(self, *, now_ms: int) -> SourceLag:
        """Return what is waiting, and how old it is at `now_ms`."""
        ...

    async def aclose(self) -> None:
        """Let others have what is not acknowledged, as soon as can be. Clients that were given stay open."""
        ...
