"""The one way to ask Stripe: `Stripe.call`, and `Stripe.every` for lists.

Parameters are written as dict literals at the call, so that the type checker sees them. Every POST carries an
idempotency key of the caller's, made from the row it is for: `options(key)`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeVar

import httpx
from stripe import StripeClient, StripeError

from control_plane.stripe_sync.outcomes import StripeKeyRefused, StripeOffError, StripeRefused, StripeUnavailable
from control_plane.stripe_sync.outcomes import outcome_of as _outcome_of
from control_plane.stripe_sync.pacing import Lanes
from control_plane.stripe_sync.transport import PacedTransport

if TYPE_CHECKING:
    from stripe import RequestOptions

__all__ = [
    "API_VERSION",
    "Stripe",
    "StripeConfig",
    "StripeKeyRefused",
    "StripeOffError",
    "StripeRefused",
    "StripeUnavailable",
    "options",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

API_VERSION: Final = "2026-10-28.endive"
TEST_REQUESTS_PER_SECOND: Final = 25.0
LIVE_REQUESTS_PER_SECOND: Final = 100.0
LIVE_METER_EVENTS_PER_SECOND: Final = 1_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeConfig:
    """How this installation deals with Stripe. `api_base` '' is Stripe itself.

    `installation` is part of every id we give, so that several installations can share a Stripe account.
    `requests_per_second` None: as many as Stripe takes with a key of this kind. `test_clock`: the clock at Stripe
    whose time customers made from now on live in; only tests have one.

    Raises:
        ValueError: a test clock with a key that moves real money.
    """

    api_key: str = field(repr=False)
    api_base: str = ""
    webhook_secret: str = field(default="", repr=False)
    thin_secret: str = field(default="", repr=False)
    automatic_tax: bool = False
    installation: str = "main"
    timeout_seconds: float = 30.0
    network_retries: int = 2
    busy_tries: int = 5
    busy_pause_seconds: float = 0.5
    requests_per_second: float | None = None
    test_clock: str = ""
    transport: httpx.AsyncBaseTransport | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.test_clock and self.is_live:
            message = "customers live in a test clock's time with test keys only"
            raise ValueError(message)

    @property
    def is_live(self) -> bool:
        """Say whether money that this key moves is real."""
        return self.api_key.startswith(("sk_live_", "rk_live_"))

    @property
    def is_restricted(self) -> bool:
        """Say whether the key can do only what it was made for."""
        return self.api_key.startswith("rk_")

    @property
    def metadata(self) -> dict[str, str]:
        """Return what marks an object at Stripe as this installation's."""
        return {"km_installation": self.installation}


class _Page(Protocol[T_co]):
    """A page of a list, of v1 or v2."""

    def auto_paging_iter(self) -> AsyncIterator[T_co]: ...


def options(idempotency_key: str) -> "RequestOptions":
    """Return the options of a POST: `km:{installation}:{kind}:{our row's id}[:{attempt or digest}]`."""
    return {"idempotency_key": idempotency_key}


class Stripe:
    """An open connection to Stripe; safe to share between tasks of one event loop."""

    def __init__(self, config: StripeConfig) -> None:
        self.config = config
        self._lanes = Lanes()
        usual = LIVE_REQUESTS_PER_SECOND if config.is_live else TEST_REQUESTS_PER_SECOND
        rate = config.requests_per_second or usual
        self._transport = PacedTransport(
            timeout_seconds=config.timeout_seconds,
            requests_per_second=rate,
            meter_events_per_second=LIVE_METER_EVENTS_PER_SECOND if config.is_live else rate,
            busy_tries=config.busy_tries,
            first_pause_seconds=config.busy_pause_seconds,
            transport=config.transport,
        )
        base = config.api_base.rstrip("/")
        self._client = StripeClient(
            config.api_key,
            stripe_version=API_VERSION,
            max_network_retries=config.network_retries,
            http_client=self._transport,
            base_addresses={"api": base, "files": base, "connect": base, "meter_events": base} if base else None,
        )

    @classmethod
    @asynccontextmanager
    async def open(cls, config: StripeConfig) -> AsyncIterator[Self]:
        """Hold connections to Stripe open.

        Raises:
            StripeOffError: there is no key.
        """
        if not config.api_key:
            raise StripeOffError
        opened = cls(config)
        try:
            yield opened
        finally:
            await opened.close()

    async def close(self) -> None:
        await self._transport.close_async()

    @property
    def client(self) -> StripeClient:
        """The SDK's client, for what asks nothing: checking signatures, reading events."""
        return self._client

    async def call(self, ask: Callable[[StripeClient], Awaitable[T]], *, lane: str | None = None) -> T:
        """Ask Stripe, when it is our turn; within a lane (`customer:meter`) one call at a time.

        Raises:
            StripeRefused: Stripe said no, and would again.
            StripeUnavailable: try again later; nobody knows whether it happened.
        """
        async with self._lanes.enter(lane):
            try:
                return await ask(self._client)
            except StripeError as error:
                raise _outcome_of(error) from error

    async def every(self, ask: Callable[[StripeClient], Awaitable[_Page[T]]]) -> AsyncIterator[T]:
        """Yield everything of a list, page by page. Raises as `call` does, also between two."""
        page = await self.call(ask)
        try:
            async for item in page.auto_paging_iter():
                yield item
        except StripeError as error:
            raise _outcome_of(error) from error
