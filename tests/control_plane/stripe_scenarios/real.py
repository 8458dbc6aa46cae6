"""Stripe itself, by its official API alone: test clocks, lists of events, its checkout page.

It also drives the simulator, which proves the driver, not Stripe.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.stripe_sync.catalog.tables import StripeMeter, StripePrice, StripeProduct
from control_plane.stripe_sync.client import Stripe, StripeConfig, StripeRefused, StripeUnavailable
from control_plane.stripe_sync.events.allowlist import SNAPSHOT_TYPES, THIN_TYPES
from control_plane.stripe_sync.events.inbox import store_found
from control_plane.stripe_sync.events.listing import TYPES_AT_ONCE, told_snapshot, told_thin
from control_plane.stripe_sync.events.model import Told
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.subscriptions.tables import StripeCoupon
from control_plane.stripe_sync.usage.summaries import is_same, units_at_stripe
from tests.control_plane.stripe_scenarios.access import MINUTES, Access
from tests.control_plane.stripe_scenarios.checkout_page import pay_by_form, pay_in_browser

THANKS = "https://shop.example/thanks"
LONGEST_STEP = timedelta(days=28)
"""A clock goes at most two intervals of its shortest subscription at once."""

READY_SECONDS = 300.0
COUNTED_SECONDS = 600.0
ONE_MINUTE = timedelta(minutes=1)
_DELIVERED = text("""
SELECT customer_id, event_name, sum(delta_units), min(stripe_at), max(stripe_at) FROM stripe_usage_rows
WHERE state = 'delivered' AND way = 'event' GROUP BY customer_id, event_name
""")


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long to wait between two looks, in seconds."""

    poll: float
    quiet: float
    """When no event was listed for so long, none is expected any more."""


AT_STRIPE = Pace(poll=2.0, quiet=10.0)
AT_A_SIMULATOR = Pace(poll=0.02, quiet=0.0)


@dataclass
class Real:
    """One story's part of an account. `began` is the clock's first moment, and not after the machine's."""

    access: Access
    stripe: Stripe
    sessions: async_sessionmaker[AsyncSession]
    clock_id: str
    began: datetime
    at: datetime
    pace: Pace
    deadline: float
    counted: dict[tuple[str, str], int] = field(default_factory=dict)
    is_late: bool = True

    # --- time

    async def advance(self, ctx: StripeContext, to: datetime) -> None:
        await self._wait_counted(ctx)
        while self.at < to:
            self.in_time()
            step = min(to, self.at + LONGEST_STEP)
            seconds = int(step.timestamp())
            if seconds > int(self.at.timestamp()):
                await self.stripe.call(
                    lambda c, seconds=seconds: c.v1.test_helpers.test_clocks.advance_async(  # type: ignore[misc]
                        self.clock_id, {"frozen_time": seconds}
                    )
                )
                await self._wait_ready()
            self.at = step

    async def _wait_ready(self) -> None:
        for _ in self._looks(READY_SECONDS):
            clock = await self.stripe.call(lambda c: c.v1.test_helpers.test_clocks.retrieve_async(self.clock_id))
            if clock.status == "ready":
                return
            assert clock.status == "advancing", f"test clock {self.clock_id} says {clock.status}"
            await asyncio.sleep(self.pace.poll)
        raise AssertionError(f"test clock {self.clock_id} is not ready after {READY_SECONDS:.0f} seconds")

    async def _wait_counted(self, ctx: StripeContext) -> None:
        """Stripe adds meter events up some time after it took them, and bills only what it has added up."""
        async with self.sessions() as session:
            rows = (await session.execute(_DELIVERED)).all()
        for customer, event_name, units, first, last in rows:
            if self.counted.get((customer, event_name)) == units:
                continue
            await self._wait_sum(customer, event_name, int(units), first, last)
            self.counted[customer, event_name] = units

    async def _wait_sum(self, customer: str, event_name: str, units: int, first: datetime, last: datetime) -> None:
        start, end = first.replace(second=0, microsecond=0), last.replace(second=0, microsecond=0) + ONE_MINUTE
        found = 0
        for _ in self._looks(COUNTED_SECONDS):
            found = await units_at_stripe(
                self.sessions, self.stripe, customer_id=customer, event_name=event_name, start=start, end=end
            )
            if is_same(found, units):
                return
            await asyncio.sleep(self.pace.poll)
        raise AssertionError(
            f"Stripe took {units} units of {event_name} for {customer} and counts {found} of them after "
            f"{COUNTED_SECONDS:.0f} seconds. Meter events ahead of the machine's time, on a test clock, are among "
            "the doubts in docs/stripe.md."
        )

    def in_time(self) -> None:
        """Raises AssertionError when the story has used up its minutes."""
        assert time.monotonic() < self.deadline, (
            f"the story has taken its {self.access.minutes:g} minutes; {MINUTES} allows more"
        )

    def _looks(self, seconds: float) -> "Looks":
        return Looks(self, seconds)

    # --- news

    async def delivered(self) -> None:
        """Nothing is on its way to a machine that Stripe cannot reach."""

    async def look_for_more(self, ctx: StripeContext) -> int:
        until = time.monotonic() + self.pace.quiet
        while True:
            self.in_time()
            told = [one async for one in self._snapshots()] + [one async for one in self._thin()]
            async with ctx.sessions() as session, session.begin():
                # Stripe lists the newest first
                found = await store_found(session, told[::-1], now=ctx.now)
            if found or time.monotonic() >= until:
                return len(found)
            await asyncio.sleep(self.pace.poll)

    async def _snapshots(self) -> AsyncIterator[Told]:
        # an event of a clock may bear the clock's time or the machine's: neither is before the story's beginning
        since = int(self.began.timestamp())
        for first in range(0, len(SNAPSHOT_TYPES), TYPES_AT_ONCE):
            listed: Any = {
                "created": {"gte": since},
                "types": list(SNAPSHOT_TYPES[first : first + TYPES_AT_ONCE]),
                "limit": 100,
            }
            async for event in self.stripe.every(lambda c, p=listed: c.v1.events.list_async(p)):  # type: ignore[misc]
                if self._may_be_ours(event.data.object):
                    yield told_snapshot(event)

    async def _thin(self) -> AsyncIterator[Told]:
        since = self.began.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        listed: Any = {"created": {"gte": since}, "types": list(THIN_TYPES), "limit": 100}
        async for event in self.stripe.every(lambda c: c.v2.core.events.list_async(listed)):
            yield told_thin(event)

    def _may_be_ours(self, thing: Any) -> bool:
        """Others that share the account, and stories of before, are not read again for nothing."""
        clock = thing["test_clock"] if "test_clock" in thing else None  # noqa: SIM401 - it is no dict
        marks = thing["metadata"] if "metadata" in thing else None  # noqa: SIM401 - it is no dict
        installation = marks["km_installation"] if marks and "km_installation" in marks else None
        return clock in (None, self.clock_id) and installation in (None, self.stripe.config.installation)

    # --- people

    async def complete_checkout(self, session_id: str, url: str, card: str) -> bool:
        if self.access.is_stripe:
            return await pay_in_browser(url, card, leads_to=THANKS)
        return await pay_by_form(url, card)

    async def retry_after(self, *days: int) -> None:
        """It cannot be set by the API: docs/stripe.md says what the account has to be set to."""

    # --- afterwards

    def told(self) -> str:
        where = "https://dashboard.stripe.com/test/test-clocks" if self.access.is_stripe else self.access.base
        return f"test clock {self.clock_id}, installation {self.stripe.config.installation}, at {self.at}: {where}"

    async def bills(self) -> list[str]:
        """Return what Stripe's invoices say, newest first, to compare with what was expected of them."""
        said = []
        listed: Any = {"test_clock": self.clock_id}
        for customer in (await self.stripe.call(lambda c: c.v1.customers.list_async(listed))).data:
            wanted: Any = {"customer": customer.id, "limit": 100}
            for one in (await self.stripe.call(lambda c, p=wanted: c.v1.invoices.list_async(p))).data:  # type: ignore[misc]
                said.append(f"{one.id} of {customer.id}: {one.status}, {one.total} {one.currency}")
                said += [f"    {line.amount:>8}  {line.description}" for line in one.lines.data]
        return said

    async def clean_up(self) -> list[str]:
        """Delete the clock with its customers, archive what was sold; returns what could not be."""
        async with self.sessions() as session:
            prices = (await session.scalars(select(StripePrice.price_id))).all()
            products = (await session.scalars(select(StripeProduct.product_id))).all()
            meters = (await session.scalars(select(StripeMeter.meter_id))).all()
            coupons = (await session.scalars(select(StripeCoupon.stripe_coupon_id))).all()
        steps: list[tuple[str, Callable[[Any], Awaitable[Any]]]] = [
            (self.clock_id, lambda c: c.v1.test_helpers.test_clocks.delete_async(self.clock_id)),
            *((one, lambda c, one=one: c.v1.products.update_async(one, {"active": False})) for one in products),
            *((one, lambda c, one=one: c.v1.prices.update_async(one, {"active": False})) for one in prices),
            *((one, lambda c, one=one: c.v1.billing.meters.deactivate_async(one)) for one in meters),
            *((one, lambda c, one=one: c.v1.coupons.delete_async(one)) for one in coupons),
        ]
        left = []
        for name, step in steps:
            try:
                await self.stripe.call(step)
            except (StripeRefused, StripeUnavailable) as error:
                left.append(f"{name}: {error}")
        return left


@dataclass
class Looks:
    """Turns of a loop that waits, until its seconds or the story's are over."""

    real: Real
    seconds: float

    def __iter__(self) -> "Looks":
        self._until = time.monotonic() + self.seconds
        return self

    def __next__(self) -> None:
        self.real.in_time()
        if time.monotonic() > self._until:
            raise StopIteration


@asynccontextmanager
async def a_part_of(
    access: Access, sessions: async_sessionmaker[AsyncSession]
) -> AsyncIterator[tuple[Stripe, Real]]:
    """Make a story's own installation and clock in an account; afterwards they are deleted or archived."""
    installation = f"t{secrets.token_hex(4)}"
    began = datetime.now(UTC).replace(microsecond=0)
    plain = StripeConfig(api_key=access.key, api_base=access.base, installation=installation)
    async with Stripe.open(plain) as stripe:
        clock = await stripe.call(
            lambda c: c.v1.test_helpers.test_clocks.create_async(
                {"frozen_time": int(began.timestamp()), "name": f"kong-monetize {installation}"}
            )
        )
    config = StripeConfig(
        api_key=access.key,
        api_base=access.base,
        installation=installation,
        test_clock=clock.id,
        requests_per_second=None if access.is_stripe else 10_000.0,
    )
    async with Stripe.open(config) as stripe:
        real = Real(
            access=access,
            stripe=stripe,
            sessions=sessions,
            clock_id=clock.id,
            began=began,
            at=began,
            pace=AT_STRIPE if access.is_stripe else AT_A_SIMULATOR,
            deadline=time.monotonic() + access.minutes * 60,
        )
        try:
            yield stripe, real
        finally:
            # pytest shows what is printed with a story that failed
            with suppress(StripeRefused, StripeUnavailable):
                print(*await real.bills(), sep="\n")
            for one in await real.clean_up():
                print(f"left at Stripe: {one}")
