"""What reading an object at Stripe again came to: the terms between those who apply objects and who asks them to.

An `apply_*` function reads one object and writes what it says into our tables. It may run twice for one event, for
events in any order, and without any event at all.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum

from sqlalchemy.ext.asyncio import AsyncSession


class Effect(StrEnum):
    """`NOT_OURS`: the object bears no `km_installation` of ours, so nothing was read into our tables.

    An `apply_*` that returns None has applied it.
    """

    APPLIED = "applied"
    NOT_OURS = "not_ours"


class NotYetError(Exception):
    """What the object belongs to is not in our tables yet: a webhook was faster than our own commit.

    The event is tried again after pauses that begin at a second; the message is kept as its reason, for operators.
    """


Mark = Callable[[AsyncSession], Awaitable[None]]
_mark: ContextVar[Mark | None] = ContextVar("km_stripe_mark", default=None)


async def mark_handled(session: AsyncSession) -> None:
    """Note in this transaction that the events being processed are handled; to be called with the last effect.

    Does nothing where no event is being processed. An `apply_*` that does not call this is safe as well: its
    events are marked right after it, and where the process dies in between, it is called once more.
    """
    mark = _mark.get()
    if mark is not None:
        await mark(session)


@contextmanager
def handling(mark: Mark) -> Iterator[None]:
    """Let `mark_handled` do this within the block."""
    token = _mark.set(mark)
    try:
        yield
    finally:
        _mark.reset(token)
