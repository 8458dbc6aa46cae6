"""When which fault is caused: drawn by the seed, every kind once before any comes twice."""

import asyncio
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from redis.exceptions import RedisError

from devstack.children import ChildFailedError
from devstack.soak.faults import FAULTS, Fault, FaultRecord
from devstack.soak.ledger import Ledger
from devstack.soak.traffic import now_ms
from devstack.stack import Stack

FIRST_FAULT_SECONDS = 3.0
LONG_GAP_SECONDS, SHORT_GAP_SECONDS = (5.0, 20.0), (1.0, 4.0)
SHORT_SOAK_MINUTES = 5.0
_FAILURES = (ChildFailedError, OSError, RedisError, subprocess.TimeoutExpired)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be played. `gap_seconds` is between which lengths nothing happens between two faults.

    Faults begin for so many minutes; with `every_kind` as long as one has not been caused. None lasts longer than
    `longest_seconds`, causing and undoing it apart.
    """

    minutes: float
    seed: int
    faults: Sequence[Fault] = FAULTS
    gap_seconds: tuple[float, float] | None = None
    every_kind: bool = False
    longest_seconds: float = 60.0

    def gap(self) -> tuple[float, float]:
        """Return the gap: where none was asked for, a short soak has no time to lose."""
        if self.gap_seconds is not None:
            return self.gap_seconds
        return LONG_GAP_SECONDS if self.minutes >= SHORT_SOAK_MINUTES else SHORT_GAP_SECONDS

    def draw(self) -> Iterator[tuple[Fault, float, float]]:
        """Yield for ever a fault, how many seconds it lasts, and how many pass until the next one."""
        drawn = random.Random(self.seed)  # noqa: S311 - to be repeated, not to be secret
        while True:
            for fault in drawn.sample(self.faults, len(self.faults)):
                yield fault, min(drawn.uniform(*fault.seconds), self.longest_seconds), drawn.uniform(*self.gap())


@dataclass(slots=True)
class Progress:
    """What the status line shows while it runs, and what faults there have been."""

    ledger: Ledger = field(default_factory=Ledger)
    doing: str = "starting the stack"
    fault: str = ""
    faults: list[FaultRecord] = field(default_factory=list)
    not_caused: list[str] = field(default_factory=list)
    not_undone: list[str] = field(default_factory=list)


async def cause_faults(stack: Stack, plan: Plan, progress: Progress) -> None:
    """Cause one fault after the other until the time is over; each is undone before the next one."""
    ends = time.monotonic() + plan.minutes * 60
    await asyncio.sleep(FIRST_FAULT_SECONDS)
    for number, (fault, seconds, gap) in enumerate(plan.draw()):
        is_due = plan.every_kind and number < len(plan.faults)
        if time.monotonic() >= ends and not is_due:
            return
        progress.fault = fault.name
        began_ms = now_ms()
        await asyncio.to_thread(_cause, stack, fault, seconds, progress)
        progress.faults.append(FaultRecord(fault.name, fault.effect, began_ms, now_ms()))
        progress.fault = ""
        await asyncio.sleep(gap if is_due else min(gap, max(0.0, ends - time.monotonic())))


def _cause(stack: Stack, fault: Fault, seconds: float, progress: Progress) -> None:
    leaving = ExitStack()
    try:
        leaving.enter_context(fault.cause(stack))
    except _FAILURES as error:
        progress.not_caused.append(f"{fault.name}: {error}")
        return
    time.sleep(seconds)
    try:
        leaving.close()
    except _FAILURES as error:
        progress.not_undone.append(f"{fault.name}: {error}")
