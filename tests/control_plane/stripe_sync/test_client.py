"""Asking Stripe: what an answer means, how fast we are, and what is never told."""

import asyncio
import time
from collections.abc import Callable

import httpx
import pytest

from control_plane.stripe_sync.client import (
    API_VERSION,
    Stripe,
    StripeConfig,
    StripeKeyRefused,
    StripeOffError,
    StripeRefused,
    StripeUnavailable,
    options,
)
from control_plane.stripe_sync.pacing import Lanes, TokenBucket

KEY = "sk_test_" + "4eC39HqLyjWDarjtT1zdp7dc"
Answer = Callable[[httpx.Request, int], httpx.Response]


def an_error(status: int, message: str = "No.", **fields: object) -> httpx.Response:
    error = {"type": "invalid_request_error", "message": message, **fields}
    return httpx.Response(status, json={"error": error})


def a_product() -> httpx.Response:
    return httpx.Response(200, json={"id": "prod_1", "object": "product", "name": "Pro"})


class Wire:
    """Answers in place of Stripe, and remembers what was asked."""

    def __init__(self, answer: Answer) -> None:
        self.asked: list[httpx.Request] = []
        self._answer = answer

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self._answer(request, len(self.asked))

    def open(self, **config: object) -> Stripe:
        given: dict[str, object] = {
            "api_key": KEY,
            "network_retries": 0,
            "busy_pause_seconds": 0.001,
            "transport": httpx.MockTransport(self),
            **config,
        }
        return Stripe(StripeConfig(**given))  # type: ignore[arg-type]


async def ask(stripe: Stripe) -> str:
    made = await stripe.call(
        lambda c: c.v1.products.create_async({"name": "Pro"}, options("km:main:product:pln_1:1"))
    )
    return made.id


class TestOutcomes:
    @pytest.mark.parametrize(
        ("answer", "kind", "spent_key"),
        [
            (an_error(500), StripeUnavailable, True),
            (an_error(503), StripeUnavailable, True),
            (an_error(429), StripeUnavailable, False),
            (an_error(409, code="idempotency_key_in_use"), StripeUnavailable, False),
            (an_error(400, code="lock_timeout"), StripeUnavailable, False),
            (an_error(401), StripeKeyRefused, False),
            (an_error(403), StripeKeyRefused, False),
        ],
    )
    async def test_what_may_go_better_later_is_unavailable(
        self, answer: httpx.Response, kind: type[StripeUnavailable], *, spent_key: bool
    ) -> None:
        with pytest.raises(StripeUnavailable) as caught:
            await ask(Wire(lambda _, __: answer).open(busy_tries=1))
        assert type(caught.value) is kind
        assert caught.value.spent_key is spent_key

    @pytest.mark.parametrize(
        ("answer", "code", "param"),
        [
            (an_error(400, code="parameter_unknown", param="nmae"), "parameter_unknown", "nmae"),
            (an_error(404, code="resource_missing", param="id"), "resource_missing", "id"),
            (an_error(402, type="card_error", code="card_declined"), "card_declined", None),
            (an_error(400, type="idempotency_error"), "idempotency_error", None),
            (an_error(400), "", None),
        ],
    )
    async def test_what_would_be_refused_again_is_refused(
        self, answer: httpx.Response, code: str, param: str | None
    ) -> None:
        with pytest.raises(StripeRefused) as caught:
            await ask(Wire(lambda _, __: answer).open())
        assert (caught.value.stripe_code, caught.value.param) == (code, param)
        assert caught.value.is_missing is (code == "resource_missing")

    async def test_no_answer_is_unavailable_and_the_key_may_be_used_again(self) -> None:
        def nothing(_request: httpx.Request, _number: int) -> httpx.Response:
            raise httpx.ReadTimeout("slow")

        with pytest.raises(StripeUnavailable) as caught:
            await ask(Wire(nothing).open())
        assert not caught.value.spent_key

    @pytest.mark.parametrize(
        "secret",
        [KEY, "rk_live_abcdefgh****wxyz", "whsec_abcdefghijkl", "pi_123_secret_456", "cs_test_1_secret_9"],
    )
    async def test_no_secret_stands_in_a_message(self, secret: str) -> None:
        with pytest.raises(StripeRefused) as caught:
            await ask(Wire(lambda _, __: an_error(400, f"Bad: {secret} here")).open())
        assert secret not in caught.value.message
        assert "here" in caught.value.message

    async def test_a_config_does_not_show_its_secrets(self) -> None:
        config = StripeConfig(api_key=KEY, webhook_secret="whsec_1234567890", thin_secret="whsec_0987654321")
        for secret in (KEY, "whsec_1234567890", "whsec_0987654321"):
            assert secret not in repr(config)

    async def test_without_a_key_stripe_is_off(self) -> None:
        with pytest.raises(StripeOffError):
            async with Stripe.open(StripeConfig(api_key="")):
                pass

    async def test_a_list_that_breaks_off_between_two_pages_says_so(self) -> None:
        def two_pages(_request: httpx.Request, number: int) -> httpx.Response:
            if number > 1:
                return an_error(500)
            item = {"id": "prod_1", "object": "product"}
            return httpx.Response(
                200, json={"object": "list", "url": "/v1/products", "has_more": True, "data": [item]}
            )

        products = Wire(two_pages).open().every(lambda c: c.v1.products.list_async({}))
        assert (await anext(products)).id == "prod_1"
        with pytest.raises(StripeUnavailable):
            await anext(products)


class TestTheWire:
    async def test_a_busy_stripe_is_asked_again_with_the_same_key(self) -> None:
        wire = Wire(lambda _, number: an_error(429) if number < 3 else a_product())
        assert await ask(wire.open()) == "prod_1"
        assert {request.headers["Idempotency-Key"] for request in wire.asked} == {"km:main:product:pln_1:1"}
        assert len(wire.asked) == 3

    async def test_patience_ends(self) -> None:
        wire = Wire(lambda _, __: an_error(429))
        with pytest.raises(StripeUnavailable):
            await ask(wire.open(busy_tries=3))
        assert len(wire.asked) == 3

    async def test_a_failure_is_repeated_by_the_sdk_with_the_same_key(self) -> None:
        wire = Wire(lambda _, number: an_error(500) if number == 1 else a_product())
        assert await ask(wire.open(network_retries=1)) == "prod_1"
        assert len({request.headers["Idempotency-Key"] for request in wire.asked}) == 1

    async def test_our_api_version_is_asked_for_at_our_base(self) -> None:
        wire = Wire(lambda _, __: a_product())
        await ask(wire.open(api_base="http://127.0.0.1:9/"))
        assert wire.asked[0].headers["Stripe-Version"] == API_VERSION
        assert str(wire.asked[0].url) == "http://127.0.0.1:9/v1/products"

    async def test_nothing_is_told_of_the_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENCODE", "1")
        wire = Wire(lambda _, __: a_product())
        stripe = wire.open()
        await ask(stripe)
        await ask(stripe)  # telemetry tells of the request before
        for request in wire.asked:
            told = " ".join(f"{name}: {value}" for name, value in request.headers.items()).lower()
            assert not any(word in told for word in ("agent/", "ai_agent", "open_code", "telemetry", "platform"))


class TestPace:
    def test_a_bucket_lets_a_second_s_worth_through_and_then_one_at_a_time(self) -> None:
        clock = 100.0
        bucket = TokenBucket(25, clock=lambda: clock)
        clock = 200.0
        waits = [bucket.reserve() for _ in range(28)]
        assert waits[:25] == [0.0] * 25
        assert waits[25:] == pytest.approx([0.04, 0.08, 0.12])

    def test_a_new_bucket_is_full(self) -> None:
        bucket = TokenBucket(4, clock=lambda: 7.0)
        assert [bucket.reserve() for _ in range(5)] == pytest.approx([0, 0, 0, 0, 0.25])

    @pytest.mark.parametrize(
        ("key", "path", "limited"),
        [
            (KEY, "prices", True),
            (KEY, "meter_events", True),
            ("rk_live_" + "a" * 24, "prices", True),
            ("rk_live_" + "a" * 24, "meter_events", False),
        ],
    )
    async def test_usage_has_a_limit_of_its_own_with_live_keys_only(
        self, key: str, path: str, *, limited: bool
    ) -> None:
        wire = Wire(lambda _, __: httpx.Response(200, json={"object": "x", "id": "x"}))
        stripe = wire.open(api_key=key, requests_per_second=20.0)
        started = time.monotonic()
        for _ in range(25):
            if path == "prices":
                await stripe.call(lambda c: c.v1.prices.retrieve_async("price_1"))
            else:
                await stripe.call(
                    lambda c: c.v1.billing.meter_events.create_async({"event_name": "a", "payload": {}})
                )
        # 20 at once, and a twentieth of a second for each of the others
        assert (time.monotonic() - started >= 0.24) or not limited

    async def test_one_at_a_time_within_a_lane_and_side_by_side_otherwise(self) -> None:
        lanes, inside, most = Lanes(), {"a": 0, "b": 0}, {"a": 0, "b": 0}

        async def work(lane: str) -> None:
            async with lanes.enter(lane):
                inside[lane] += 1
                most[lane] = max(most[lane], inside[lane])
                both.append(inside["a"] and inside["b"])
                await asyncio.sleep(0.001)
                inside[lane] -= 1

        both: list[int] = []
        await asyncio.gather(*(work(lane) for lane in "abababab"))
        assert most == {"a": 1, "b": 1}
        assert any(both)
        assert lanes._lanes == {}
