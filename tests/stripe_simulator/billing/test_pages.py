"""Checkout and portal, by their pages and by orders."""

import re

import httpx
import pytest
import stripe

DAY = 86_400


def fetch(url, **form):
    """The page, and where it was in the end."""
    method, data = ("POST", form) if form else ("GET", None)
    answer = httpx.request(method, url, data=data, follow_redirects=True)
    answer.raise_for_status()
    return answer.text, str(answer.url)


def make_session(shop, *names, **more):
    items = [
        {"price": shop.prices[name], **({} if name.startswith("calls") else {"quantity": 1})} for name in names
    ]
    given = {
        "mode": "subscription",
        "line_items": items,
        "success_url": shop.sim.url + "/_sim/health?s={CHECKOUT_SESSION_ID}",
        "cancel_url": "https://example.com/back",
        **more,
    }
    return shop.client.v1.checkout.sessions.create(given)


class TestCheckout:
    def test_by_its_page_makes_customer_card_and_subscription(self, shop):
        shop.prices["setup"] = shop.flat(2000, None)
        session = make_session(
            shop, "pro", "calls", "setup", client_reference_id="acc_1", subscription_data={"metadata": {"k": "v"}}
        )
        assert (session.amount_total, session.status, session.customer) == (6900, "open", None)
        page, _ = fetch(session.url)
        assert "Pay $69.00" in page
        assert "https://example.com/back" in page
        _, landed = fetch(session.url, card="pm_card_visa", email="buyer@example.com")
        assert landed.endswith(f"/_sim/health?s={session.id}")
        done = shop.client.v1.checkout.sessions.retrieve(session.id, {"expand": ["subscription", "invoice"]})
        assert (done.status, done.payment_status, done.subscription.status) == ("complete", "paid", "active")
        assert (done.subscription.metadata["k"], done.invoice.total) == ("v", 6900)
        assert done.subscription.default_payment_method
        assert shop.client.v1.customers.retrieve(done.customer).email == "buyer@example.com"
        events = shop.events()
        assert events[-1] == "checkout.session.completed"
        assert events.index("customer.subscription.created") < events.index("invoice.paid")

    def test_with_a_card_that_fails_stays_open(self, shop):
        session = make_session(shop, "pro", customer=shop.customer(None))
        page, _ = fetch(session.url, card="pm_card_chargeCustomerFail")
        assert "Your card was declined." in page
        assert shop.client.v1.checkout.sessions.retrieve(session.id).status == "open"
        assert shop.client.v1.subscriptions.list({"customer": session.customer}).data == []
        done = shop.sim.control.order(
            "complete_checkout", session=session.id, card="pm_card_authenticationRequired"
        )
        assert done["completed"]

    def test_takes_a_code_and_a_trial(self, shop):
        coupon = shop.client.v1.coupons.create({"percent_off": 20, "duration": "forever"}).id
        shop.client.v1.promotion_codes.create(
            {"promotion": {"type": "coupon", "coupon": coupon}, "code": "FOUNDER"}
        )
        session = make_session(
            shop, "pro", allow_promotion_codes=True, subscription_data={"trial_period_days": 14}
        )
        assert session.amount_total == 0
        wrong = shop.sim.control.order("complete_checkout", session=session.id, promotion_code="NOBODY")
        assert wrong["problem"]["code"] == "promotion_code_invalid"
        done = shop.sim.control.order("complete_checkout", session=session.id, promotion_code="founder")
        sub = shop.client.v1.subscriptions.retrieve(done["subscription"], {"expand": ["discounts.source.coupon"]})
        assert (sub.status, sub.discounts[0].source.coupon.percent_off) == ("trialing", 20)
        assert sub.discounts[0].checkout_session == session.id
        assert shop.client.v1.checkout.sessions.retrieve(session.id).payment_status == "no_payment_required"

    def test_expires_by_itself_and_on_request(self, shop):
        first, second = make_session(shop, "pro"), make_session(shop, "pro")
        assert shop.client.v1.checkout.sessions.expire(first.id).status == "expired"
        shop.sim.control.advance(DAY)
        assert shop.client.v1.checkout.sessions.retrieve(second.id).status == "expired"
        assert not shop.sim.control.order("complete_checkout", session=second.id)["completed"]

    @pytest.mark.parametrize(
        ("change", "param"),
        [
            ({"line_items": [{"price": "calls", "quantity": 1}]}, "line_items[0]"),
            ({"line_items": [{"price": "pro"}]}, "line_items[0][quantity]"),
            ({"discounts": [{"coupon": "x"}], "allow_promotion_codes": True}, "allow_promotion_codes"),
            ({"customer_update": {"address": "auto"}}, "customer_update"),
        ],
    )
    def test_refuses_what_contradicts_itself(self, shop, change, param):
        asked = {"line_items": [{"price": "pro", "quantity": 1}], **change}
        asked["line_items"] = [{**one, "price": shop.prices[one["price"]]} for one in asked["line_items"]]
        with pytest.raises(stripe.InvalidRequestError) as refused:
            make_session(shop, **asked)
        assert refused.value.param == param


class TestPortal:
    def test_changes_the_card_cancels_and_pays(self, shop):
        features = {
            "payment_method_update": {"enabled": True},
            "invoice_history": {"enabled": True},
            "subscription_cancel": {"enabled": True, "mode": "at_period_end"},
        }
        shop.client.v1.billing_portal.configurations.create({"features": features})
        customer = shop.customer()
        sub = shop.subscribe(customer, "pro")
        url = shop.client.v1.billing_portal.sessions.create({"customer": customer}).url
        page, _ = fetch(url, card="pm_card_chargeCustomerFail")
        assert "visa ending in 0341" in page
        shop.to_period_end(sub, plus=3600)
        assert shop.again(sub).status == "past_due"
        page, _ = fetch(url)
        invoice = re.search(r'name="pay" value="(\w+)"', page)[1]
        fetch(url, card="pm_card_visa")
        fetch(url, pay=invoice)
        assert shop.again(sub).status == "active"
        fetch(url, cancel=sub.id)
        assert shop.again(sub).cancel_at_period_end
        fetch(url, keep=sub.id)
        assert not shop.again(sub).cancel_at_period_end

    def test_lets_an_open_invoice_be_paid_on_its_own_page(self, shop):
        customer = shop.customer("pm_card_chargeCustomerFail")
        sub = shop.subscribe(customer, "pro", expand=["latest_invoice"])
        url = sub.latest_invoice.hosted_invoice_url
        assert "Pay $49.00" in fetch(url)[0]
        assert "paid" in fetch(url, card="pm_card_visa")[0]
        assert shop.again(sub).status == "active"

    def test_is_reached_only_by_its_secret(self, shop):
        assert httpx.get(shop.sim.url + "/portal/guess").status_code == 404

    def test_offers_only_flows_that_are_switched_on(self, shop):
        shop.client.v1.billing_portal.configurations.create({"features": {"invoice_history": {"enabled": True}}})
        with pytest.raises(stripe.InvalidRequestError, match="disabled in the portal configuration"):
            shop.client.v1.billing_portal.sessions.create(
                {"customer": shop.customer(), "flow_data": {"type": "payment_method_update"}}
            )
