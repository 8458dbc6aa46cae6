"""The simulator as a process: its page, its orders, its end; and that its own mistakes come to light."""

import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import stripe

from devstack.children import is_running
from devstack.stripe.contract.checking import Contract
from devstack.stripe.control_client import ControlError
from devstack.stripe.embedded import EmbeddedStripe
from devstack.stripe.requests import Request, work
from devstack.stripe.routes import ROUTES, route
from devstack.stripe.simulator import Simulator


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.read().decode()


class TestPage:
    def test_it_shows_what_there_is_and_escapes_it(self, sim: EmbeddedStripe, client: stripe.StripeClient) -> None:
        made = client.v1.customers.create({"name": "<b>Ada</b>", "email": "ada@example.test"})
        page = get(sim.url)
        assert made.id in page
        assert "&lt;b&gt;Ada" in page
        assert "<b>Ada" not in page
        assert "customer.created" in page
        assert 'name="viewport"' in page
        assert "ada@example.test" in get(f"{sim.url}/objects/customer/{made.id}")

    def test_secrets_are_on_no_page(self, sim: EmbeddedStripe, client: stripe.StripeClient) -> None:
        made = client.v1.webhook_endpoints.create({"url": "https://x.test/", "enabled_events": ["*"]})
        assert made.secret not in get(f"{sim.url}/objects/webhook_endpoint/{made.id}")


class TestOrders:
    def test_a_reset_leaves_nothing(self, sim: EmbeddedStripe, client: stripe.StripeClient) -> None:
        client.v1.customers.create({})
        sim.control.fault("error_before", count=5)
        sim.control.configure(aggregation_seconds=5)
        sim.control.reset(at=1_000_000_000)
        assert sim.control.now() == 1_000_000_000
        assert sim.control.dump() == {}
        assert sim.control.faults()["ordered"] == []
        assert sim.control.configure()["aggregation_seconds"] == 0
        assert sim.control.requests() == []

    def test_time_goes_forward_only(self, sim: EmbeddedStripe, now: int) -> None:
        assert sim.control.advance(60) == now + 60
        assert sim.control.advance(to=now + 90) == now + 90
        with pytest.raises(ControlError, match="cannot go back"):
            sim.control.advance(to=now)
        sim.control.thaw()
        assert sim.control.now() >= now + 90

    def test_settings_and_orders_there_are_not_are_refused(self, sim: EmbeddedStripe) -> None:
        with pytest.raises(ControlError, match="no settings speed"):
            sim.control.configure(speed=3)
        with pytest.raises(ControlError, match="there is no order dance"):
            sim.control.order("dance")

    def test_calls_are_kept_with_what_became_of_them(
        self, sim: EmbeddedStripe, client: stripe.StripeClient, now: int
    ) -> None:
        sim.control.fault("error_before", path="/v1/products")
        client.v1.customers.create({"name": "A"}, {"idempotency_key": "k"})
        with pytest.raises(stripe.APIError):
            client.v1.products.create({"name": "P"})
        first, second = sim.control.requests()
        assert (first["path"], first["params"], first["idempotency_key"]) == ("/v1/customers", {"name": "A"}, "k")
        assert (first["status"], first["at"], first["fault"]) == (200, now, "")
        assert (second["status"], second["fault"]) == (500, "error_before")


class TestOwnMistakes:
    """A handler that does wrong is answered 500 and remembered."""

    def answer(self, handler) -> tuple[int, list[dict]]:
        route("GET", "/v1/balance")(handler)
        try:
            sim = Simulator()
            request = Request("GET", "/v1/balance", "", {"authorization": "Bearer sk_test_x"}, b"")
            return work(sim, Contract(), request, "req_1").status, sim.violations
        finally:
            ROUTES[:] = [one for one in ROUTES if one.template != "/v1/balance"]

    def test_an_answer_that_does_not_fit(self) -> None:
        status, violations = self.answer(lambda *_: {"object": "balance", "available": "much"})
        assert status == 500
        assert "Balance" in violations[0]["problem"] or "available" in violations[0]["problem"]

    def test_a_crash(self) -> None:
        status, violations = self.answer(lambda *_: {}["nothing"])
        assert status == 500
        assert "KeyError" in violations[0]["problem"]

    def test_an_event_that_does_not_fit(self) -> None:
        sim = Simulator()
        sim.emit("customer.created", {"id": "cus_1", "object": "customer"})
        sim.emit("customer.crated", {"id": "x", "object": "nothing"})
        assert [one["where"] for one in sim.violations] == ["event customer.created", "event customer.crated"]


class TestProcess:
    def test_it_ends_with_its_parent_and_listens_on_loopback_only(self, tmp_path: Path) -> None:
        script = (
            "import sys, time; from devstack.stripe.embedded import EmbeddedStripe\n"
            "s = EmbeddedStripe(); s.start(); print(s.pid, s.port, flush=True); time.sleep(60)"
        )
        root = Path(__file__).parents[2]
        with subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=root
        ) as parent:
            assert parent.stdout is not None
            pid, port = map(int, parent.stdout.readline().split())
            assert is_running(pid)
            listening = Path(f"/proc/{pid}/net/tcp").read_text()
            assert f"0100007F:{port:04X}" in listening
            assert f"00000000:{port:04X}" not in listening
            parent.kill()
            parent.wait()
        deadline = time.monotonic() + 20
        while is_running(pid):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def test_it_ends_at_once_though_a_call_waits_for_an_answer(self, tmp_path: Path) -> None:
        server = EmbeddedStripe()
        server.start()
        server.control.fault("timeout_before")
        with pytest.raises(OSError, match="timed out"):
            urllib.request.urlopen(f"{server.url}/v1/customers", timeout=0.1)
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 10
        with pytest.raises(ControlError, match="no answer"):
            server.control.now()
