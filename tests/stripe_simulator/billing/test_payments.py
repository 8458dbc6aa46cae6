"""Money over the API: failed cards, retries, recovery, refunds, credit notes, disputes, balances."""

import pytest
import stripe

DAY = 86_400
HOUR = 3_600
GERMANY = {"country": "DE", "city": "Berlin", "line1": "Weg 1", "postal_code": "10115"}


@pytest.fixture
def unlucky(shop):
    """A paying subscription whose card fails from now on: (customer, subscription)."""
    customer = shop.customer()
    sub = shop.subscribe(customer, "pro")
    shop.sim.control.order("set_card", customer=customer, card="pm_card_chargeCustomerFail")
    return customer, sub


class TestDunning:
    @pytest.mark.parametrize(
        ("after", "status"), [("cancel", "canceled"), ("unpaid", "unpaid"), ("past_due", "past_due")]
    )
    def test_tries_again_as_set_and_ends_as_set(self, shop, unlucky, after, status):
        customer, sub = unlucky
        shop.sim.control.order("billing_settings", retry_days=[1, 2], after_retries=after)
        shop.to_period_end(sub, plus=HOUR)
        failed = shop.invoices(customer)[0]
        assert (shop.again(sub).status, failed.status, failed.attempt_count) == ("past_due", "open", 1)
        assert failed.next_payment_attempt == shop.sim.control.now() + DAY
        shop.sim.control.advance(DAY)
        assert (shop.again(sub).status, shop.invoices(customer)[0].attempt_count) == ("past_due", 2)
        shop.sim.control.advance(2 * DAY)
        last = shop.invoices(customer)[0]
        assert (shop.again(sub).status, last.attempt_count, last.next_payment_attempt) == (status, 3, None)
        assert shop.events().count("invoice.payment_failed") == 3

    def test_ends_when_a_new_card_pays(self, shop, unlucky):
        customer, sub = unlucky
        shop.to_period_end(sub, plus=HOUR)
        failed = shop.invoices(customer)[0]
        with pytest.raises(stripe.CardError) as refused:
            shop.client.v1.invoices.pay(failed.id)
        assert (refused.value.code, refused.value.http_status) == ("card_declined", 402)
        shop.client.v1.invoices.pay(failed.id, {"payment_method": "pm_card_visa"})
        assert shop.again(sub).status == "active"
        assert not shop.client.v1.customers.retrieve(customer).delinquent
        assert shop.events()[-1] == "customer.subscription.updated"

    def test_ends_by_itself_when_a_later_try_succeeds(self, shop, unlucky):
        customer, sub = unlucky
        shop.to_period_end(sub, plus=HOUR)
        shop.sim.control.order("set_card", customer=customer, card="pm_card_visa")
        assert shop.again(sub).status == "past_due"
        shop.sim.control.advance(3 * DAY)
        assert (shop.again(sub).status, shop.invoices(customer)[0].status) == ("active", "paid")

    def test_ends_only_with_the_newest_invoice(self, shop, unlucky):
        customer, sub = unlucky
        shop.sim.control.order("billing_settings", retry_days=[90], after_retries="past_due")
        for _ in range(2):
            shop.to_period_end(sub, plus=HOUR)
        newest, older = shop.invoices(customer)[:2]
        for invoice, status in ((older, "past_due"), (newest, "active")):
            shop.client.v1.invoices.pay(invoice.id, {"payment_method": "pm_card_visa"})
            assert shop.again(sub).status == status

    def test_stops_with_the_subscription(self, shop, unlucky):
        customer, sub = unlucky
        shop.to_period_end(sub, plus=HOUR)
        shop.client.v1.subscriptions.cancel(sub.id)
        left = shop.invoices(customer)[0]
        assert (left.status, left.auto_advance, left.next_payment_attempt) == ("open", False, None)
        shop.sim.control.advance(10 * DAY)
        assert shop.invoices(customer)[0].attempt_count == 1

    def test_says_when_the_customer_must_act(self, shop, unlucky):
        customer, sub = unlucky
        shop.sim.control.order("set_card", customer=customer, card="pm_card_authenticationRequired")
        shop.to_period_end(sub, plus=HOUR)
        assert {"invoice.payment_action_required", "invoice.payment_failed"} <= set(shop.events())
        intent = shop.client.v1.invoices.retrieve(
            shop.invoices(customer)[0].id, {"expand": ["payments.data.payment.payment_intent"]}
        )
        assert intent.payments.data[0].payment.payment_intent.status == "requires_action"
        assert shop.sim.control.order("pay_hosted_invoice", invoice=intent.id) == {"paid": True}
        assert shop.again(sub).status == "active"


class TestGivingBack:
    def test_refunds_no_more_than_was_paid(self, shop):
        customer = shop.customer()
        shop.subscribe(customer, "pro")
        charge = shop.client.v1.charges.list({"customer": customer}).data[0]
        shop.client.v1.refunds.create({"charge": charge.id, "amount": 4000})
        with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded"):
            shop.client.v1.refunds.create({"payment_intent": charge.payment_intent, "amount": 1000})
        assert shop.client.v1.refunds.create({"charge": charge.id}).amount == 900
        assert shop.client.v1.charges.retrieve(charge.id).refunded

    def test_credit_notes_on_paid_invoices_go_to_balance_and_card(self, shop):
        customer = shop.customer()
        sub = shop.subscribe(customer, "pro")
        notes = shop.client.v1.credit_notes
        given = {"invoice": sub.latest_invoice, "amount": 1500}
        with pytest.raises(stripe.InvalidRequestError, match="must equal"):
            notes.create({**given, "credit_amount": 1000})
        note = notes.create({**given, "credit_amount": 1000, "refund_amount": 500})
        assert (note.type, note.total, note.refunds[0].amount_refunded) == ("post_payment", 1500, 500)
        assert shop.client.v1.customers.retrieve(customer).balance == -1000
        assert shop.client.v1.invoices.retrieve(sub.latest_invoice).post_payment_credit_notes_amount == 1500
        with pytest.raises(stripe.InvalidRequestError, match="at most 3400"):
            notes.create({"invoice": sub.latest_invoice, "amount": 3401, "credit_amount": 3401})
        shop.to_period_end(sub, plus=HOUR)
        newest = shop.invoices(customer)[0]
        assert (newest.total, newest.starting_balance, newest.amount_due) == (4900, -1000, 3900)

    def test_credit_notes_on_open_invoices_lower_what_is_due(self, shop, unlucky):
        customer, sub = unlucky
        shop.to_period_end(sub, plus=HOUR)
        invoice = shop.invoices(customer)[0]
        line = invoice.lines.data[0].id
        part = {"type": "invoice_line_item", "invoice_line_item": line, "amount": 900}
        shop.client.v1.credit_notes.create({"invoice": invoice.id, "lines": [part]})
        lowered = shop.client.v1.invoices.retrieve(invoice.id)
        assert (lowered.amount_due, lowered.amount_remaining, lowered.status) == (4000, 4000, "open")
        shop.client.v1.credit_notes.create({"invoice": invoice.id, "amount": 4000})
        assert shop.client.v1.invoices.retrieve(invoice.id).status == "paid"
        assert shop.again(sub).status == "active"

    @pytest.mark.parametrize(("won", "status"), [(True, "won"), (False, "lost")])
    def test_disputes_block_refunds_until_they_are_won(self, shop, won, status):
        customer = shop.customer()
        sub = shop.subscribe(customer, "pro")
        dispute = shop.sim.control.order("open_dispute", invoice=sub.latest_invoice)["dispute"]
        charge = shop.client.v1.disputes.retrieve(dispute).charge
        with pytest.raises(stripe.InvalidRequestError, match="disputed"):
            shop.client.v1.refunds.create({"charge": charge})
        shop.sim.control.order("close_dispute", dispute=dispute, won=won)
        assert shop.client.v1.disputes.retrieve(dispute).status == status
        assert shop.events()[-1] == "charge.dispute.closed"

    def test_a_voided_invoice_gives_the_balance_back(self, shop):
        customer = shop.customer(None)
        transactions = shop.client.v1.customers.balance_transactions
        transactions.create(customer, {"amount": -1000, "currency": "usd", "description": "Referral"})
        sub = shop.subscribe(customer, "pro", payment_behavior="default_incomplete")
        assert shop.client.v1.customers.retrieve(customer).balance == 0
        shop.client.v1.invoices.void_invoice(sub.latest_invoice)
        assert shop.client.v1.customers.retrieve(customer).balance == -1000
        kinds = [one.type for one in transactions.list(customer).data]
        assert kinds == ["unapplied_from_invoice", "applied_to_invoice", "adjustment"]


class TestTaxes:
    def test_are_collected_only_where_registered(self, shop):
        customer = shop.customer(address=GERMANY)
        tax = {"automatic_tax": {"enabled": True}, "expand": ["latest_invoice"]}
        free = shop.subscribe(customer, "pro", **tax).latest_invoice
        assert (free.total, free.total_taxes, free.automatic_tax.status) == (4900, [], "complete")
        shop.client.v1.tax.registrations.create(
            {
                "country": "DE",
                "active_from": "now",
                "country_options": {
                    "de": {"type": "standard", "standard": {"place_of_supply_scheme": "standard"}}
                },
            }
        )
        taxed = shop.subscribe(customer, "team", **tax).latest_invoice
        assert (taxed.total, taxed.total_taxes[0].amount, taxed.total_excluding_tax) == (11781, 1881, 9900)
        assert taxed.lines.data[0].taxes[0].taxable_amount == 9900

    def test_hold_an_invoice_back_when_the_place_is_unknown(self, shop):
        customer = shop.customer(address=GERMANY)
        sub = shop.subscribe(customer, "pro", automatic_tax={"enabled": True})
        shop.client.v1.customers.update(customer, {"address": ""})
        shop.to_period_end(sub, plus=HOUR)
        held = shop.invoices(customer)[0]
        assert (held.status, held.last_finalization_error.code) == ("draft", "customer_tax_location_invalid")
        assert "invoice.finalization_failed" in shop.events()
        shop.client.v1.customers.update(customer, {"address": GERMANY})
        assert shop.client.v1.invoices.finalize_invoice(held.id).total == 4900

    def test_by_rates_of_ones_own(self, shop):
        rate = shop.client.v1.tax_rates.create({"display_name": "VAT", "percentage": 19, "inclusive": True}).id
        invoice = shop.subscribe(
            shop.customer(), "pro", default_tax_rates=[rate], expand=["latest_invoice"]
        ).latest_invoice
        assert (invoice.total, invoice.total_excluding_tax, invoice.total_taxes[0].amount) == (4900, 4118, 782)
