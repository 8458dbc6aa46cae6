"""What the end of a period brings: usage of the ended one, charges of the next."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from devstack.stripe.billing.changes import begin_period
from devstack.stripe.billing.items import copied, period_from
from devstack.stripe.billing.lines import is_metered, usage_lines
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object


@dataclass
class Turn:
    """The lines of a period's invoice."""

    arrears: list[Object] = field(default_factory=list)
    advance: list[Object] = field(default_factory=list)

    @property
    def lines(self) -> list[Object]:
        return self.arrears + self.advance


def end_usage(sim: Simulator, sub: Object, items: Sequence[Object], *, at: int, turn: Turn) -> None:
    """Usage lines of the metered items whose period ends by `at`; usage of a trial is free."""
    if sub["status"] == "trialing":
        return
    for item in items:
        if is_metered(item["price"]) and item["_usage_from"] < at:
            turn.arrears += usage_lines(sim, sub, item, start=item["_usage_from"], end=at)


def begin_periods(
    sim: Simulator, sub: Object, items: Sequence[Object], *, at: int, turn: Turn, anchor: int
) -> None:
    """The next period of each item; licensed ones are charged ahead."""
    for item in items:
        start, end = period_from(anchor, item["price"], at)
        item["current_period_start"], item["current_period_end"] = start, end
        item["_usage_from"] = at
        if not is_metered(item["price"]):
            begin_period(sim, sub, item, (start, end), turn.advance)


def upcoming(sim: Simulator, sub: Object, items: Sequence[Object]) -> tuple[Turn, int]:
    """The next turn as it stands now, worked out on copies, and its moment."""
    at = min(item["current_period_end"] for item in items)
    due = [copied(item) for item in items if item["current_period_end"] == at]
    turn = Turn()
    end_usage(sim, sub, due, at=at, turn=turn)
    if not _ends_at(sub, at):
        begin_periods(sim, sub, due, at=at, turn=turn, anchor=sub["billing_cycle_anchor"])
    return turn, at


def _ends_at(sub: Object, at: int) -> bool:
    return sub["cancel_at"] is not None and sub["cancel_at"] <= at
