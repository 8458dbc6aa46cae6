"""What a shipper may say about the past: "everything that finished before this moment has been shipped".

A scan reads the clock first, then renames every live file that holds something, then looks at the size of every
segment. Whatever was in a file before the clock was read is inside those sizes. So once all of them are shipped,
every line *written* before the scan began is shipped, by whatever writer and into whichever file: a writer that
still holds a renamed file writes behind the sizes, and so after the moment the scan stands for.

A request *finishes* before its line is written: Kong's log phase runs after the last byte, the file may be open
but not yet written to (file-log opens it again for each line), and km-usage-meter runs in a timer. The claim is
therefore the scan's moment less a margin; a line that takes longer than the margin is late, not lost: its hour
gets a delta revision.

A claim holds for the entry that carries it and for what stands before it in the stream. After a fall-back there is
none (0) until everything is shipped again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Scan:
    at_ms: int
    targets: Mapping[str, int]


class Claims:
    """The claim of one run; apart from "none" (0) it never goes back."""

    def __init__(self, *, margin_ms: int) -> None:
        self._margin_ms = margin_ms
        self._pending: _Scan | None = None
        self._highest_ms = 0
        self.claimed_ms = 0
        self.settled_at_ms = 0

    @property
    def clock_went_back(self) -> bool:
        """The last scan was before a moment already claimed: nothing is claimed until the clock is past it."""
        return bool(self.settled_at_ms) and self.settled_at_ms - self._margin_ms < self._highest_ms

    def scanned(self, *, at_ms: int, targets: Mapping[str, int]) -> None:
        """Note a scan that left no live file behind: `targets` is what must be shipped (segment -> offset).

        An earlier scan that is still waited for is kept: under steady load a newer one would never be reached.
        """
        if self._pending is None:
            self._pending = _Scan(at_ms, targets)

    def settle(self, is_shipped: Callable[[str, int], bool]) -> None:
        """Raise the claim where everything that the noted scan found has been shipped."""
        scan = self._pending
        if scan is None or not all(is_shipped(name, offset) for name, offset in scan.targets.items()):
            return
        self._pending = None
        self.settled_at_ms = scan.at_ms
        claim_ms = scan.at_ms - self._margin_ms
        self.claimed_ms = claim_ms if claim_ms >= self._highest_ms else 0
        self._highest_ms = max(self._highest_ms, claim_ms)

    def withdraw(self) -> None:
        """Claim nothing until the next scan is shipped whole."""
        self._pending = None
        self.claimed_ms = 0
