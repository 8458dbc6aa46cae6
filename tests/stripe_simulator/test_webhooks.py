"""Events on their way: signed, repeated, held, shuffled, lost."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import stripe

from devstack.stripe.embedded import EmbeddedStripe

SECRET = "whsec_snapshots"
THIN_SECRET = "whsec_thin"


class Receiver:
    """A server that keeps what it gets; it answers the statuses it is told to, then 200."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes, str]] = []
        self.statuses: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver.statuses.pop(0) if receiver.statuses else 200
                if status == 200:
                    receiver.got.append((self.path, body, self.headers["Stripe-Signature"]))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def names(self) -> list[str]:
        """Of the customers in the events, as they came."""
        return [json.loads(body)["data"]["object"]["name"] for _, body, _ in self.got]

    def wait(self, count: int) -> None:
        deadline = time.monotonic() + 20
        while len(self.got) < count:
            assert time.monotonic() < deadline, f"{len(self.got)} of {count} came"
            time.sleep(0.01)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def hooked(sim: EmbeddedStripe, receiver: Receiver) -> Iterator[Receiver]:
    """Customers' events go to it."""
    events = ("customer.created", "customer.updated")
    sim.control.add_webhook(f"{receiver.url}/snapshots", events=events, secret=SECRET)
    yield receiver
    # nothing may be on its way to a server that is gone
    sim.control.reset()


@pytest.fixture
def make(client: stripe.StripeClient) -> Callable[[str], str]:
    return lambda name: client.v1.customers.create({"name": name}).id


class TestDelivering:
    def test_a_snapshot_is_signed_and_holds_the_object_as_it_was(
        self, sim: EmbeddedStripe, client: stripe.StripeClient, hooked: Receiver
    ) -> None:
        made = client.v1.customers.create({"name": "A"}, {"idempotency_key": "k"})
        client.v1.customers.update(made.id, {"name": "B"})
        hooked.wait(2)
        first, second = sorted(
            (client.construct_event(body, signed, SECRET) for _, body, signed in hooked.got),
            key=lambda one: one.type,
        )
        assert (first.type, first.data.object["name"], first.api_version) == (
            "customer.created",
            "A",
            "2026-10-28.endive",
        )
        assert first.request is not None
        assert first.request.idempotency_key == "k"
        assert (second.data.object["name"], second.data.previous_attributes["name"]) == ("B", "A")  # type: ignore[index]
        with pytest.raises(stripe.SignatureVerificationError):
            client.construct_event(hooked.got[0][1], hooked.got[0][2], THIN_SECRET)
        sim.control.wait_delivered()
        assert client.v1.events.retrieve(first.id).pending_webhooks == 0

    def test_only_the_events_asked_for_are_sent(
        self, sim: EmbeddedStripe, client: stripe.StripeClient, hooked: Receiver
    ) -> None:
        client.v1.products.create({"name": "P"})
        assert sim.control.deliveries()["all"] == []

    def test_an_update_that_changes_nothing_is_no_news(
        self, client: stripe.StripeClient, make: Callable[[str], str]
    ) -> None:
        client.v1.customers.update(make("A"), {"name": "A"})
        assert [one.type for one in client.v1.events.list().data] == ["customer.created"]

    def test_a_thin_notification_names_the_event_that_holds_the_data(
        self, sim: EmbeddedStripe, client: stripe.StripeClient, receiver: Receiver
    ) -> None:
        sim.control.add_thin_webhook(f"{receiver.url}/thin", secret=THIN_SECRET)
        meter = client.v1.billing.meters.create(
            {"display_name": "Calls", "event_name": "calls", "default_aggregation": {"formula": "sum"}}
        )
        client.v1.billing.meter_events.create(
            {"event_name": "calls", "payload": {"stripe_customer_id": "cus_none", "value": "1"}, "identifier": "x"}
        )
        receiver.wait(1)
        path, body, signed = receiver.got[0]
        assert path == "/thin"
        assert "data" not in json.loads(body)
        note = client.parse_event_notification(body, signed, THIN_SECRET)
        assert note.related_object.id == meter.id  # type: ignore[union-attr]
        error = note.fetch_event().data.reason.error_types[0]  # type: ignore[attr-defined]
        assert error.code == "meter_event_customer_not_found"
        assert error.sample_errors[0].request.identifier == "x"
        assert note.fetch_related_object().event_name == "calls"  # type: ignore[union-attr]

    def test_thin_events_of_v1_objects_go_to_who_asked_for_them(
        self, sim: EmbeddedStripe, client: stripe.StripeClient, receiver: Receiver, make: Callable[[str], str]
    ) -> None:
        sim.control.add_thin_webhook(f"{receiver.url}/thin", events=("v1.customer.created",), secret=THIN_SECRET)
        made = make("A")
        receiver.wait(1)
        note = client.parse_event_notification(receiver.got[0][1], receiver.got[0][2], THIN_SECRET)
        assert note.fetch_related_object().id == made  # type: ignore[union-attr]

    def test_what_is_not_taken_is_sent_again(
        self, sim: EmbeddedStripe, hooked: Receiver, make: Callable[[str], str]
    ) -> None:
        hooked.statuses = [500]
        make("A")
        hooked.wait(1)
        sim.control.wait_delivered()
        assert sim.control.deliveries()["all"][0]["attempts"] == 2

    def test_until_the_attempts_are_used_up(
        self, sim: EmbeddedStripe, hooked: Receiver, make: Callable[[str], str]
    ) -> None:
        sim.control.configure(webhook_attempts=1)
        hooked.statuses = [500]
        make("A")
        sim.control.wait_delivered()
        assert sim.control.deliveries()["failed"] == 1
        assert hooked.got == []


class TestDisorder:
    def test_held_events_come_when_they_are_ordered_in_the_order_that_is_ordered(
        self, sim: EmbeddedStripe, hooked: Receiver, make: Callable[[str], str]
    ) -> None:
        sim.control.hold_webhooks()
        for name in "ABC":
            make(name)
        assert sim.control.deliveries()["held"] == 3
        assert sim.control.deliver(order="reversed") == 3
        hooked.wait(3)
        assert hooked.names() == ["C", "B", "A"]
        sim.control.disorder()
        make("D")
        hooked.wait(4)

    def test_each_can_come_several_times(
        self, sim: EmbeddedStripe, hooked: Receiver, make: Callable[[str], str]
    ) -> None:
        sim.control.hold_webhooks()
        make("A")
        sim.control.deliver(times=3)
        hooked.wait(3)
        assert len({body for _, body, _ in hooked.got}) == 1

    def test_shuffled_ones_come_in_the_order_of_the_seed(
        self, sim: EmbeddedStripe, hooked: Receiver, make: Callable[[str], str]
    ) -> None:
        orders = []
        for _ in range(2):
            hooked.got.clear()
            sim.control.disorder(hold=True, seed=5)
            for name in "ABCDEF":
                make(name)
            sim.control.deliver(order="shuffled")
            hooked.wait(6)
            orders.append(hooked.names())
        assert orders[0] == orders[1] != sorted(orders[0])

    def test_duplicates_drops_and_delays_by_chance(
        self, sim: EmbeddedStripe, hooked: Receiver, make: Callable[[str], str]
    ) -> None:
        sim.control.disorder(duplicate=1.0)
        make("twice")
        hooked.wait(2)
        sim.control.disorder(drop=1.0)
        make("never")
        sim.control.disorder(delay=1.0, delay_seconds=0.2)
        make("late")
        hooked.wait(3)
        sim.control.wait_delivered()
        assert hooked.names() == ["twice", "twice", "late"]
        assert sim.control.deliveries()["dropped"] == 1

    def test_only_some_types_can_be_held(
        self, sim: EmbeddedStripe, client: stripe.StripeClient, hooked: Receiver, make: Callable[[str], str]
    ) -> None:
        sim.control.disorder(hold=True, types=["customer.created"])
        client.v1.customers.update(make("A"), {"name": "B"})
        hooked.wait(1)
        assert hooked.names() == ["B"]

    def test_one_fact_can_be_told_by_two_events(
        self, sim: EmbeddedStripe, hooked: Receiver, make: Callable[[str], str]
    ) -> None:
        sim.control.configure(twin_events=1.0)
        make("A")
        hooked.wait(2)
        events = [json.loads(body) for _, body, _ in hooked.got]
        assert events[0]["id"] != events[1]["id"]
        assert events[0]["data"] == events[1]["data"]

    def test_an_event_can_be_sent_again(
        self, sim: EmbeddedStripe, client: stripe.StripeClient, hooked: Receiver, make: Callable[[str], str]
    ) -> None:
        make("A")
        hooked.wait(1)
        assert sim.control.resend(client.v1.events.list().data[0].id) == 1
        hooked.wait(2)
        assert hooked.names() == ["A", "A"]


class TestEventLog:
    def test_events_are_listed_by_type_and_kept_for_thirty_days(
        self, sim: EmbeddedStripe, client: stripe.StripeClient, make: Callable[[str], str]
    ) -> None:
        client.v1.customers.update(make("A"), {"name": "B"})
        sim.control.advance(86_400)
        client.v1.products.create({"name": "P"})

        def types(**given: Any) -> list[str]:
            return [one.type for one in client.v1.events.list(given).data]  # type: ignore[arg-type]

        assert types() == ["product.created", "customer.updated", "customer.created"]
        assert types(type="customer.*") == ["customer.updated", "customer.created"]
        assert types(types=["product.created", "customer.created"]) == ["product.created", "customer.created"]
        sim.control.advance(29 * 86_400 + 1)
        assert types() == ["product.created"]


class TestEndpoints:
    def test_the_secret_is_shown_once(self, client: stripe.StripeClient) -> None:
        made = client.v1.webhook_endpoints.create({"url": "https://x.test/", "enabled_events": ["invoice.paid"]})
        assert made.secret
        assert "secret" not in client.v1.webhook_endpoints.retrieve(made.id)
        changed = client.v1.webhook_endpoints.update(made.id, {"disabled": True, "enabled_events": ["*"]})
        assert (changed.status, changed.enabled_events) == ("disabled", ["*"])
        client.v1.webhook_endpoints.delete(made.id)
        assert client.v1.webhook_endpoints.list().data == []

    def test_a_destination_of_thin_events_shows_its_secret_when_it_is_made(
        self, client: stripe.StripeClient
    ) -> None:
        made = client.v2.core.event_destinations.create(
            {
                "name": "km",
                "type": "webhook_endpoint",
                "event_payload": "thin",
                "enabled_events": ["v1.billing.meter.no_meter_found"],
                "webhook_endpoint": {"url": "https://x.test/thin"},
                "include": ["webhook_endpoint.signing_secret", "webhook_endpoint.url"],
            }
        )
        assert made.webhook_endpoint is not None
        assert made.webhook_endpoint.signing_secret
        shown = client.v2.core.event_destinations.retrieve(made.id, {"include": ["webhook_endpoint.url"]})
        assert shown.webhook_endpoint is not None
        assert shown.webhook_endpoint.url == "https://x.test/thin"
        assert [one.id for one in client.v2.core.event_destinations.list().data] == [made.id]
        client.v2.core.event_destinations.delete(made.id)
        assert client.v2.core.event_destinations.list().data == []
