"""Faults to order, idempotency keys and limits."""

import threading
import time
from collections.abc import Callable

import pytest
import stripe

from devstack.stripe.control_client import ControlError
from devstack.stripe.embedded import EmbeddedStripe

NOT_DONE = ("timeout_before", "reset_before", "error_before", "rate_limited", "lock_timeout")
DONE = ("timeout_after", "reset_after")


@pytest.fixture
def client_quick(client_with: Callable[..., stripe.StripeClient]) -> stripe.StripeClient:
    """Gives up on an answer after a third of a second."""
    return client_with(timeout=0.3)


class TestOrderedFaults:
    @pytest.mark.parametrize("kind", NOT_DONE)
    def test_what_fails_before_is_not_done(self, sim: EmbeddedStripe, client_quick, kind: str) -> None:
        sim.control.fault(kind, method="POST", path="/v1/customers")
        with pytest.raises(stripe.StripeError):
            client_quick.v1.customers.create({"name": "A"}, {"idempotency_key": "k"})
        assert sim.control.dump("customer") == {}
        made = client_quick.v1.customers.create({"name": "A"}, {"idempotency_key": "k"})
        assert [one["id"] for one in sim.control.dump("customer")["customer"]] == [made.id]

    @pytest.mark.parametrize("kind", DONE)
    def test_what_is_done_without_an_answer_is_answered_under_the_same_key(
        self, sim: EmbeddedStripe, client_quick, kind: str
    ) -> None:
        sim.control.fault(kind)
        with pytest.raises(stripe.APIConnectionError):
            client_quick.v1.customers.create({"name": "A"}, {"idempotency_key": "k"})
        made = client_quick.v1.customers.create({"name": "A"}, {"idempotency_key": "k"})
        assert made.last_response.headers["idempotent-replayed"] == "true"
        assert [one["id"] for one in sim.control.dump("customer")["customer"]] == [made.id]

    def test_an_error_after_it_was_done_is_the_answer_for_a_day(
        self, sim: EmbeddedStripe, client: stripe.StripeClient
    ) -> None:
        sim.control.fault("error_after")
        for _ in range(2):
            with pytest.raises(stripe.APIError) as failed:
                client.v1.customers.create({"name": "A"}, {"idempotency_key": "k"})
            assert failed.value.http_status == 500
        assert len(sim.control.dump("customer")["customer"]) == 1

    def test_only_as_many_calls_as_ordered_and_only_those_that_match(
        self, sim: EmbeddedStripe, client: stripe.StripeClient
    ) -> None:
        sim.control.fault("error_before", method="POST", path="/v1/prod*", count=2)
        client.v1.customers.create({})
        client.v1.products.list()
        for _ in range(2):
            with pytest.raises(stripe.APIError):
                client.v1.products.create({"name": "A"})
        client.v1.products.create({"name": "A"})
        assert sim.control.faults() == {"ordered": [], "rates": {}, "happened": {"error_before": 2}}

    def test_a_fault_there_is_not_is_refused(self, sim: EmbeddedStripe) -> None:
        with pytest.raises(ControlError, match="there is no fault"):
            sim.control.fault("earthquake")

    def test_faults_by_chance_can_be_repeated(self, sim: EmbeddedStripe, client: stripe.StripeClient) -> None:
        def outcomes() -> list[bool]:
            sim.control.random_faults({"error_before": 0.3, "rate_limited": 0.2}, seed=7)
            found = []
            for _ in range(30):
                try:
                    client.v1.customers.list()
                    found.append(True)
                except stripe.StripeError:
                    found.append(False)
            return found

        first = outcomes()
        assert 5 < first.count(False) < 25
        assert outcomes() == first
        sim.control.clear_faults()
        client.v1.customers.list()


class TestRetriesOfTheSdk:
    def test_it_gets_over_errors_and_lock_timeouts_but_not_over_the_other_429(
        self, sim: EmbeddedStripe, client_with
    ) -> None:
        patient = client_with(retries=2)
        sim.control.fault("error_before")
        sim.control.fault("lock_timeout")
        patient.v1.customers.create({"name": "A"})
        keys = {one["idempotency_key"] for one in sim.control.requests("/v1/customers")}
        assert len(keys) == 1
        assert len(sim.control.dump("customer")["customer"]) == 1
        sim.control.fault("rate_limited")
        with pytest.raises(stripe.RateLimitError) as refused:
            patient.v1.customers.create({"name": "B"})
        assert "stripe-should-retry" not in refused.value.headers
        assert refused.value.headers["stripe-rate-limited-reason"] == "global-rate"


class TestIdempotencyKeys:
    def test_the_same_call_has_the_first_answer_for_a_day(
        self, sim: EmbeddedStripe, client: stripe.StripeClient
    ) -> None:
        first = client.v1.customers.create({"name": "A"}, {"idempotency_key": "k"})
        client.v1.customers.update(first.id, {"name": "B"})
        again = client.v1.customers.create({"name": "A"}, {"idempotency_key": "k"})
        assert (again.id, again.name) == (first.id, "A")
        sim.control.advance(86_399)
        assert client.v1.customers.create({"name": "A"}, {"idempotency_key": "k"}).id == first.id
        sim.control.advance(1)
        assert client.v1.customers.create({"name": "A"}, {"idempotency_key": "k"}).id != first.id

    def test_another_call_under_the_same_key_is_refused(self, client: stripe.StripeClient) -> None:
        client.v1.customers.create({"name": "A"}, {"idempotency_key": "k"})
        with pytest.raises(stripe.IdempotencyError):
            client.v1.customers.create({"name": "B"}, {"idempotency_key": "k"})
        with pytest.raises(stripe.IdempotencyError):
            client.v1.products.create({"name": "A"}, {"idempotency_key": "k"})

    def test_a_refusal_of_the_operation_is_kept_but_not_one_of_the_form(self, client: stripe.StripeClient) -> None:
        given = {"currency": "usd", "product": "later", "unit_amount": 1}
        for _ in range(2):
            with pytest.raises(stripe.InvalidRequestError) as refused:
                client.v1.prices.create(given, {"idempotency_key": "k"})  # type: ignore[arg-type]
            client.v1.products.create({"id": "later", "name": "L"}, {"idempotency_key": "p"})
        assert refused.value.headers["idempotent-replayed"] == "true"
        with pytest.raises(stripe.InvalidRequestError):
            client.v1.customers.create({"nmae": "A"}, {"idempotency_key": "c"})  # type: ignore[typeddict-unknown-key]
        client.v1.customers.create({"name": "A"}, {"idempotency_key": "c"})

    def test_a_call_that_is_not_finished_is_a_conflict(self, sim: EmbeddedStripe, client_with) -> None:
        sim.control.fault("slow", seconds=0.5)
        first, second = client_with(), client_with()
        outcomes: list[object] = []
        thread = threading.Thread(
            target=lambda: outcomes.append(first.v1.customers.create({"name": "A"}, {"idempotency_key": "k"}))
        )
        thread.start()
        wait_seen(sim, 1)
        with pytest.raises(stripe.StripeError) as refused:
            second.v1.customers.create({"name": "A"}, {"idempotency_key": "k"})
        thread.join()
        assert refused.value.http_status == 409
        assert "in-progress request" in str(refused.value)
        assert len(outcomes) == 1


class TestLimits:
    def test_more_calls_in_a_second_than_allowed_are_refused(
        self, sim: EmbeddedStripe, client: stripe.StripeClient
    ) -> None:
        sim.control.configure(requests_per_second=1)

        def hurry() -> None:
            for _ in range(10):
                client.v1.customers.list()

        with pytest.raises(stripe.RateLimitError):
            hurry()

    def test_one_event_at_a_time_is_taken_of_a_customer_and_meter(self, sim: EmbeddedStripe, client_with) -> None:
        first, second = client_with(), client_with()
        customer, other = (first.v1.customers.create({}).id for _ in range(2))

        def send(client: stripe.StripeClient, to: str) -> None:
            payload = {"stripe_customer_id": to, "value": "1"}
            client.v1.billing.meter_events.create({"event_name": "calls", "payload": payload})

        send(second, customer)
        sim.control.configure(meter_event_seconds=0.5)
        thread = threading.Thread(target=send, args=(first, customer))
        thread.start()
        wait_seen(sim, 2, path="/v1/billing/meter_events")
        with pytest.raises(stripe.RateLimitError) as refused:
            send(second, customer)
        send(second, other)
        thread.join()
        send(second, customer)
        assert refused.value.headers["stripe-should-retry"] == "true"


def wait_seen(sim: EmbeddedStripe, count: int, *, path: str = "/v1/customers") -> None:
    """Until the simulator has begun with that many calls."""
    deadline = time.monotonic() + 20
    while len(sim.control.requests(path)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)
