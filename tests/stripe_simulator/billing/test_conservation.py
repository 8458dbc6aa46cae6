"""Whatever is done to a subscription: every second and every unit is billed once, and previews come true."""

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from devstack.stripe import operations
from devstack.stripe.clock import Clock
from devstack.stripe.routes import Call, match
from devstack.stripe.simulator import Simulator

operations.load()
START = 1_772_366_400  # 2026-03-01 12:00 UTC
HOUR = 3_600
DAY = 86_400
FLAT = {"small": 900, "pro": 4900, "team": 9900}


class Account:
    """One simulated account, called without HTTP; one customer with one subscription."""

    def __init__(self):
        self.sim = Simulator()
        self.sim.clock = Clock(START)
        product = self.call("POST", "/v1/products", name="API")["id"]
        meter = self.call(
            "POST",
            "/v1/billing/meters",
            display_name="Calls",
            event_name="calls",
            default_aggregation={"formula": "sum"},
        )["id"]
        self.flat = {
            name: self.call(
                "POST",
                "/v1/prices",
                currency="usd",
                product=product,
                unit_amount=amount,
                recurring={"interval": "month"},
            )["id"]
            for name, amount in FLAT.items()
        }
        usage = {"interval": "month", "usage_type": "metered", "meter": meter}
        self.metered = {
            name: self.call(
                "POST",
                "/v1/prices",
                currency="usd",
                product=product,
                unit_amount=1,
                nickname=name,
                recurring=usage,
            )["id"]
            for name in FLAT
        }
        card = "pm_card_visa"
        self.customer = self.call(
            "POST", "/v1/customers", payment_method=card, invoice_settings={"default_payment_method": card}
        )["id"]
        items = [{"price": self.flat["pro"]}, {"price": self.metered["pro"]}]
        self.sub = self.call("POST", "/v1/subscriptions", customer=self.customer, items=items)
        self.plan = "pro"
        self.owed = Decimal(0)
        self.used = 0
        self.since = START

    def call(self, method, path, **params):
        found = match(method, path)
        assert found is not None, path
        return found[0].handler(self.sim, Call(method, path, found[1], params))

    def use(self, units):
        payload = {"stripe_customer_id": self.customer, "value": str(units)}
        self.call("POST", "/v1/billing/meter_events", event_name="calls", payload=payload)
        self.sim.run_soon()
        self.used += units

    def advance(self, seconds):
        """Time passes, and is owed for by the second."""
        left = self.sim.now() + seconds
        while self.since < left:
            item = self.sub["items"]["data"][0]
            until = min(left, item["current_period_end"])
            length = item["current_period_end"] - item["current_period_start"]
            self.owed += Decimal(FLAT[self.plan]) * (until - self.since) / length
            self.since = until
            self.sim.clock.advance_to(until)

    def swap(self, plan, behavior):
        old = {one["price"]["id"]: one["id"] for one in self.sub["items"]["data"]}
        items = [
            {"id": old[self.flat[self.plan]], "price": self.flat[plan]},
            {"id": old[self.metered[self.plan]], "price": self.metered[plan]},
        ]
        details = {"items": items, "proration_behavior": behavior}
        preview = self.call(
            "POST", "/v1/invoices/create_preview", subscription=self.sub["id"], subscription_details=details
        )
        before = self.sub["latest_invoice"]
        self.call("POST", f"/v1/subscriptions/{self.sub['id']}", items=items, proration_behavior=behavior)
        self.plan = plan
        if behavior == "always_invoice" and self.sub["latest_invoice"] != before:
            made = self.sim.state.get("invoice", self.sub["latest_invoice"])
            assert [one["amount"] for one in made["_lines"]] == [one["amount"] for one in preview["_lines"]]
            assert (made["total"], made["status"]) == (preview["total"], "paid")

    def lines(self):
        return [line for one in self.sim.state.all("invoice") for line in one["_lines"]]


steps = st.one_of(
    st.tuples(st.just("advance"), st.integers(1, 40 * DAY)),
    st.tuples(st.just("use"), st.integers(1, 5000)),
    st.tuples(
        st.just("swap"), st.sampled_from(sorted(FLAT)), st.sampled_from(["always_invoice", "create_prorations"])
    ),
)


class TestConservation:
    @settings(max_examples=25, deadline=None)
    @given(done=st.lists(steps, max_size=12))
    def test_every_second_and_every_unit_is_billed_once(self, done):
        account = Account()
        for kind, *given_ in done:
            match kind:
                case "advance":
                    account.advance(*given_)
                case "use":
                    account.use(*given_)
                    account.advance(1)
                case _ if given_[0] != account.plan:
                    account.swap(*given_)
        end = account.sub["items"]["data"][0]["current_period_end"]
        account.call("POST", f"/v1/subscriptions/{account.sub['id']}", cancel_at_period_end=True)
        account.advance(end - account.sim.now())
        account.sim.clock.advance_to(end + HOUR)
        assert account.sub["status"] == "canceled"
        assert all(one["status"] == "paid" for one in account.sim.state.all("invoice"))
        metered = [one for one in account.lines() if one["_price"]["recurring"]["usage_type"] == "metered"]
        flat = [one for one in account.lines() if one not in metered]
        assert sum(one["quantity"] for one in metered) == sum(one["amount"] for one in metered) == account.used
        # what each line was rounded by is all that may be between them
        assert abs(sum(one["amount"] for one in flat) - account.owed) <= Decimal("0.5") * len(flat) + Decimal(
            "0.01"
        )
