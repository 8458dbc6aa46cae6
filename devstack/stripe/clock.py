"""The simulator's time, and what is to happen when it comes."""

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, field

Action = Callable[[], None]


@dataclass(order=True)
class Due:
    """One thing to do at a moment (seconds since 1970)."""

    when: int
    number: int
    action: Action = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        """It will not run; harmless when it has run."""
        self.cancelled = True


class Clock:
    """One line of time with its agenda: the simulator's own, or a test clock's.

    `frozen_at` None follows the machine's clock (plus what was advanced); a number stands still until advanced.
    """

    def __init__(self, frozen_at: int | None = None) -> None:
        self._frozen_at = frozen_at
        self._ahead = 0
        self._pinned: int | None = None
        self._agenda: list[Due] = []
        self._last_number = 0

    def now(self) -> int:
        """Whole seconds. While something due runs, it is the moment it was due."""
        return self._pinned if self._pinned is not None else self._shown()

    def _shown(self) -> int:
        return self._frozen_at if self._frozen_at is not None else int(time.time()) + self._ahead

    @property
    def is_frozen(self) -> bool:
        return self._frozen_at is not None

    def freeze(self, at: int | None = None) -> None:
        """Stand still, now or at a later moment. Raises ValueError for an earlier one."""
        self.advance_to(self.now() if at is None else at)
        self._frozen_at = self._shown()

    def thaw(self) -> None:
        """Go on from here at the machine's pace."""
        if self._frozen_at is not None:
            self._ahead = self._frozen_at - int(time.time())
            self._frozen_at = None

    def at(self, when: int, action: Action) -> Due:
        """What lies in the past is due now; nothing runs inside this call."""
        self._last_number += 1
        due = Due(max(when, self.now()), self._last_number, action)
        heapq.heappush(self._agenda, due)
        return due

    def next_due(self) -> int | None:
        while self._agenda and self._agenda[0].cancelled:
            heapq.heappop(self._agenda)
        return self._agenda[0].when if self._agenda else None

    def run_due(self) -> int:
        """Everything due by now, in order; returns how many ran. Does nothing inside an action."""
        return 0 if self._pinned is not None else self._run_until(self._shown())

    def advance_to(self, target: int) -> int:
        """Move forward, running everything due on the way at its own moment. Raises ValueError when backwards."""
        if target < self._shown():
            raise ValueError(f"cannot go back from {self._shown()} to {target}")
        ran = self._run_until(target)
        if self._frozen_at is not None:
            self._frozen_at = target
        else:
            self._ahead = target - int(time.time())
        # an action may have asked for something at the very end
        return ran + self.run_due()

    def _run_until(self, target: int) -> int:
        ran = 0
        try:
            while (when := self.next_due()) is not None and when <= target:
                due = heapq.heappop(self._agenda)
                self._pinned = when
                due.action()
                ran += 1
        finally:
            self._pinned = None
        return ran
