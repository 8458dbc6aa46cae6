"""Subscriptions over the API: beginnings, renewals, usage, changes."""

import pytest
import stripe

DAY = 86_400
HOUR = 3_600


def amounts(invoice):
    return [one.amount for one in invoice.lines.data]


class TestBeginning:
    def test_bills_flat_prices_at_once_and_metered_ones_not_at_all(self, shop, now):
        sub = shop.subscribe(shop.customer(), "pro", "calls", expand=["latest_invoice.payments"])
        invoice = sub.latest_invoice
        assert (sub.status, invoice.status, invoice.billing_reason) == ("active", "paid", "subscription_create")
        assert amounts(invoice) == [4900]
        assert invoice.parent.subscription_details.subscription == sub.id
        line = invoice.lines.data[0]
        assert line.pricing.price_details.price == shop.prices["pro"]
        assert line.parent.subscription_item_details.subscription_item == shop.item(sub, "pro")
        assert invoice.payments.data[0].status == "paid"
        assert sub["items"].data[0].current_period_start == now
        assert "quantity" not in sub["items"].data[1]

    def test_makes_no_invoice_when_only_usage_is_charged(self, shop):
        sub = shop.subscribe(shop.customer(None), "calls")
        assert (sub.status, sub.latest_invoice) == ("active", None)

    def test_waits_for_the_first_payment_and_expires_after_23_hours(self, shop):
        customer = shop.customer("pm_card_chargeCustomerFail")
        sub = shop.subscribe(customer, "pro")
        assert sub.status == "incomplete"
        shop.sim.control.advance(23 * HOUR)
        assert shop.again(sub).status == "incomplete_expired"
        assert [one.status for one in shop.invoices(customer)] == ["void"]

    def test_becomes_active_when_the_first_invoice_is_paid_later(self, shop):
        sub = shop.subscribe(
            shop.customer(None),
            "pro",
            payment_behavior="default_incomplete",
            expand=["latest_invoice.confirmation_secret"],
        )
        assert sub.status == "incomplete"
        assert sub.latest_invoice.confirmation_secret.client_secret
        shop.client.v1.invoices.pay(sub.latest_invoice.id, {"payment_method": "pm_card_visa"})
        assert shop.again(sub).status == "active"

    def test_is_refused_without_a_card_or_with_one_that_fails(self, shop):
        with pytest.raises(stripe.InvalidRequestError, match="no attached payment source"):
            shop.subscribe(shop.customer(None), "pro")
        failing = shop.customer("pm_card_chargeCustomerFail")
        with pytest.raises(stripe.CardError):
            shop.subscribe(failing, "pro", payment_behavior="error_if_incomplete")
        assert shop.invoices(failing) == []

    def test_bills_a_part_up_to_an_anchor_on_the_hour(self, shop, now):
        anchor = now + 10 * DAY
        sub = shop.subscribe(shop.customer(), "pro", billing_cycle_anchor=anchor, expand=["latest_invoice"])
        # the whole period would have been 11 February to 11 March: 28 days
        assert sub.latest_invoice.total == 4900 * 10 // 28
        shop.to_period_end(sub, plus=2 * HOUR)
        assert shop.invoices(sub.customer)[0].total == 4900

    @pytest.mark.parametrize(
        ("change", "param"),
        [
            ({"items": [{"price": "calls", "quantity": 2}]}, "items[0][quantity]"),
            ({"items": [{"price": "pro"}, {"price": "pro"}]}, "items"),
            ({"items": [{"price": "calls"}, {"price": "calls_team"}]}, "items"),
            ({"trial_end": 1000}, "trial_end"),
            ({"days_until_due": 5}, "days_until_due"),
        ],
    )
    def test_refuses_what_contradicts_itself(self, shop, change, param):
        asked = {"customer": shop.customer(), "items": [{"price": "pro"}], **change}
        asked["items"] = [{**one, "price": shop.prices[one["price"]]} for one in asked["items"]]
        with pytest.raises(stripe.InvalidRequestError) as refused:
            shop.client.v1.subscriptions.create(asked)
        assert refused.value.param == param


class TestTrials:
    def test_cost_nothing_not_even_usage_and_end_in_a_full_period(self, shop, now):
        customer = shop.customer()
        sub = shop.subscribe(customer, "pro", "calls", trial_period_days=14)
        assert (sub.status, sub.billing_cycle_anchor) == ("trialing", now + 14 * DAY)
        shop.use(customer, 5000)
        shop.sim.control.advance(11 * DAY)
        assert "customer.subscription.trial_will_end" in shop.events()
        shop.to_period_end(sub, plus=2 * HOUR)
        assert shop.again(sub).status == "active"
        assert amounts(shop.invoices(customer)[0]) == [4900]

    @pytest.mark.parametrize(
        ("behavior", "status"), [("cancel", "canceled"), ("pause", "paused"), ("create_invoice", "past_due")]
    )
    def test_end_as_asked_where_no_card_was_given(self, shop, behavior, status):
        settings = {"end_behavior": {"missing_payment_method": behavior}}
        sub = shop.subscribe(shop.customer(None), "pro", trial_period_days=1, trial_settings=settings)
        shop.to_period_end(sub, plus=2 * HOUR)
        assert shop.again(sub).status == status


class TestRenewal:
    def test_drafts_waits_and_counts_usage_reported_meanwhile(self, shop):
        customer = shop.customer()
        sub = shop.subscribe(customer, "pro", "calls")
        shop.use(customer, 1500)
        end = sub["items"].data[0].current_period_end
        shop.sim.control.advance(to=end + 60)
        draft = shop.invoices(customer)[0]
        assert (draft.status, draft.billing_reason, draft.automatically_finalizes_at) == (
            "draft",
            "subscription_cycle",
            end + HOUR,
        )
        assert (draft.period_end, amounts(draft)) == (end, [0, 200, 4900])
        shop.use(customer, 500, at=end - 1)
        shop.use(customer, 9999, at=end)
        shop.sim.control.advance(to=end + HOUR)
        paid = shop.invoices(customer)[0]
        assert (paid.status, amounts(paid)) == ("paid", [0, 400, 4900])
        shop.use(customer, 700, at=end - 1)
        assert amounts(shop.invoices(customer)[0]) == [0, 400, 4900]
        metered = paid.lines.data[1]
        assert (metered.quantity, metered.period.end) == (1000, end)

    def test_keeps_the_day_of_an_anchor_that_a_month_lacks(self, shop):
        shop.sim.control.advance(to=shop.sim.control.now() + 30 * DAY)  # 31 March, 12:00
        sub = shop.subscribe(shop.customer(), "pro")
        ends = []
        for _ in range(3):
            ends.append(shop.again(sub)["items"].data[0].current_period_end)
            shop.to_period_end(sub)
        starts = [sub["items"].data[0].current_period_start, *ends]
        assert [(after - before) // DAY for before, after in zip(starts, ends, strict=False)] == [30, 31, 30]

    def test_can_be_held_and_finalised_by_hand(self, shop):
        customer = shop.customer()
        sub = shop.subscribe(customer, "pro", "calls")
        shop.to_period_end(sub)
        draft = shop.invoices(customer)[0]
        held = shop.client.v1.invoices.update(draft.id, {"auto_advance": False})
        assert held.automatically_finalizes_at is None
        shop.sim.control.advance(5 * DAY)
        item = shop.client.v1.invoice_items.create(
            {
                "customer": customer,
                "invoice": draft.id,
                "amount": -900,
                "currency": "usd",
                "description": "Correction",
            }
        )
        assert item.invoice == draft.id
        done = shop.client.v1.invoices.finalize_invoice(draft.id, {"auto_advance": True})
        assert done.total == 4000
        assert shop.client.v1.invoices.retrieve(draft.id).status == "paid"

    def test_takes_invoice_items_that_waited(self, shop):
        customer = shop.customer()
        sub = shop.subscribe(customer, "pro")
        shop.client.v1.invoice_items.create(
            {"customer": customer, "amount": 250, "currency": "usd", "subscription": sub.id}
        )
        preview = shop.client.v1.invoices.create_preview({"subscription": sub.id})
        shop.to_period_end(sub, plus=HOUR)
        assert shop.invoices(customer)[0].total == preview.total == 5150


class TestUpgrade:
    def test_costs_what_its_preview_said(self, shop, now):
        customer = shop.customer()
        sub = shop.subscribe(customer, "pro", "calls")
        shop.sim.control.advance(10 * DAY)
        shop.use(customer, 2000)
        shop.sim.control.advance(60)
        at = shop.sim.control.now()
        items = [
            {"id": shop.item(sub, "pro"), "price": shop.prices["team"]},
            {"id": shop.item(sub, "calls"), "price": shop.prices["calls_team"]},
        ]
        details = {"items": items, "proration_behavior": "always_invoice", "proration_date": at}
        preview = shop.client.v1.invoices.create_preview({"subscription": sub.id, "subscription_details": details})
        shop.sim.control.advance(30)
        changed = shop.client.v1.subscriptions.update(
            sub.id,
            {
                "items": items,
                "proration_behavior": "always_invoice",
                "payment_behavior": "pending_if_incomplete",
                "proration_date": at,
                "expand": ["latest_invoice"],
            },
        )
        whole, left = 31 * DAY, 21 * DAY - 60
        credit, debit = -round(4900 * left / whole), round(9900 * left / whole)
        assert amounts(preview) == amounts(changed.latest_invoice) == [credit, debit, 0, 400]
        assert changed.latest_invoice.status == "paid"
        assert {one.price.id for one in changed["items"].data} == {shop.prices["team"], shop.prices["calls_team"]}
        # the included tier starts anew: what was billed at once is not billed again
        shop.use(customer, 1200)
        shop.to_period_end(sub, plus=HOUR)
        assert amounts(shop.invoices(customer)[0]) == [0, 40, 9900]

    def test_waits_for_its_payment_and_is_made_when_paid(self, shop):
        customer = shop.customer()
        sub = shop.subscribe(customer, "pro")
        shop.sim.control.order("set_card", customer=customer, card="pm_card_chargeCustomerFail")
        waiting = shop.swap(
            sub, "pro", "team", proration_behavior="always_invoice", payment_behavior="pending_if_incomplete"
        )
        assert (waiting.status, waiting.pending_update is not None) == ("active", True)
        assert waiting["items"].data[0].price.id == shop.prices["pro"]
        shop.client.v1.invoices.pay(waiting.latest_invoice, {"payment_method": "pm_card_visa"})
        made = shop.again(sub)
        assert (made.pending_update, made["items"].data[0].price.id) == (None, shop.prices["team"])
        assert "customer.subscription.pending_update_applied" in shop.events()

    def test_that_was_never_paid_is_given_up(self, shop):
        customer = shop.customer()
        sub = shop.subscribe(customer, "pro")
        shop.sim.control.order("set_card", customer=customer, card="pm_card_authenticationRequired")
        shop.swap(
            sub, "pro", "team", proration_behavior="always_invoice", payment_behavior="pending_if_incomplete"
        )
        assert "invoice.payment_action_required" in shop.events()
        shop.sim.control.advance(23 * HOUR)
        left = shop.again(sub)
        assert (left.status, left.pending_update, left["items"].data[0].price.id) == (
            "active",
            None,
            shop.prices["pro"],
        )
        assert shop.invoices(customer)[0].status == "void"

    def test_without_an_invoice_of_its_own_goes_onto_the_next(self, shop):
        customer = shop.customer()
        sub = shop.subscribe(customer, "pro")
        shop.sim.control.advance(31 * DAY // 2)
        shop.swap(sub, "pro", "team")
        preview = shop.client.v1.invoices.create_preview({"subscription": sub.id})
        assert amounts(preview) == [-2450, 4950, 9900]
        shop.to_period_end(sub, plus=HOUR)
        assert amounts(shop.invoices(customer)[0]) == [-2450, 4950, 9900]

    def test_to_another_interval_begins_a_period_now(self, shop):
        customer = shop.customer()
        sub = shop.subscribe(customer, "pro")
        shop.sim.control.advance(31 * DAY // 2)
        changed = shop.swap(sub, "pro", "yearly", expand=["latest_invoice"])
        assert amounts(changed.latest_invoice) == [-2450, 50000]
        assert changed["items"].data[0].current_period_start == shop.sim.control.now()


class TestDowngrade:
    def test_by_a_schedule_switches_at_the_periods_end(self, shop):
        customer = shop.customer()
        sub = shop.subscribe(customer, "team", "calls_team", "addon")
        v1 = shop.client.v1.subscription_schedules
        schedule = v1.create({"from_subscription": sub.id})
        phase = schedule.phases[0]
        stays = {"price": shop.prices["addon"], "quantity": 1}
        now_items = [{"price": shop.prices["team"], "quantity": 1}, {"price": shop.prices["calls_team"]}, stays]
        next_items = [{"price": shop.prices["pro"], "quantity": 1}, {"price": shop.prices["calls"]}, stays]
        v1.update(
            schedule.id,
            {
                "end_behavior": "release",
                "proration_behavior": "none",
                "phases": [
                    {"start_date": phase.start_date, "end_date": phase.end_date, "items": now_items},
                    {"items": next_items, "duration": {"interval": "month"}, "proration_behavior": "none"},
                ],
            },
        )
        with pytest.raises(stripe.InvalidRequestError, match="managed by the subscription schedule"):
            shop.client.v1.subscriptions.update(sub.id, {"cancel_at_period_end": True})
        shop.use(customer, 1500)
        preview = shop.client.v1.invoices.create_preview({"subscription": sub.id})
        shop.to_period_end(sub, plus=HOUR)
        assert amounts(shop.invoices(customer)[0]) == amounts(preview) == [0, 100, 4900, 1000]
        switched = shop.again(sub)
        names = ("pro", "calls", "addon")
        assert {one.price.id for one in switched["items"].data} == {shop.prices[name] for name in names}
        assert shop.item(switched, "addon") == shop.item(sub, "addon")
        shop.to_period_end(sub, plus=HOUR)
        assert v1.retrieve(schedule.id).status == "released"
        assert (shop.again(sub).schedule, shop.again(sub).status) == (None, "active")

    def test_can_be_taken_back(self, shop):
        sub = shop.subscribe(shop.customer(), "team")
        schedule = shop.client.v1.subscription_schedules.create({"from_subscription": sub.id})
        shop.client.v1.subscription_schedules.release(schedule.id)
        assert shop.again(sub).schedule is None
        assert shop.client.v1.subscriptions.update(sub.id, {"cancel_at_period_end": True}).cancel_at_period_end


class TestCancelling:
    def test_at_the_periods_end_bills_the_last_usage_on_a_draft(self, shop):
        customer = shop.customer()
        sub = shop.subscribe(customer, "pro", "calls")
        shop.client.v1.subscriptions.update(sub.id, {"cancel_at_period_end": True})
        shop.use(customer, 2000)
        shop.to_period_end(sub)
        assert shop.again(sub).status == "canceled"
        assert (shop.invoices(customer)[0].status, amounts(shop.invoices(customer)[0])) == ("draft", [0, 400])
        shop.sim.control.advance(HOUR)
        assert shop.invoices(customer)[0].status == "paid"

    def test_can_be_undone_before(self, shop):
        sub = shop.subscribe(shop.customer(), "pro")
        shop.client.v1.subscriptions.update(sub.id, {"cancel_at_period_end": True})
        shop.client.v1.subscriptions.update(sub.id, {"cancel_at_period_end": False})
        shop.to_period_end(sub, plus=HOUR)
        assert shop.again(sub).status == "active"

    def test_at_once_bills_usage_and_gives_credit_only_on_request(self, shop):
        customer = shop.customer()
        first = shop.subscribe(customer, "pro", "calls")
        shop.use(customer, 2000)
        shop.sim.control.advance(31 * DAY // 2)
        shop.client.v1.subscriptions.cancel(first.id)
        assert len(shop.invoices(customer)) == 1
        second = shop.subscribe(customer, "pro")
        shop.client.v1.subscriptions.cancel(second.id, {"invoice_now": True, "prorate": True})
        assert shop.invoices(customer)[0].total == -4900
        assert shop.client.v1.customers.retrieve(customer).balance == -4900

    def test_pausing_stops_billing_until_it_is_resumed(self, shop):
        customer = shop.customer()
        sub = shop.subscribe(customer, "pro")
        assert shop.client.v1.subscriptions.pause(sub.id).status == "paused"
        shop.sim.control.advance(70 * DAY)
        assert len(shop.invoices(customer)) == 1
        assert shop.client.v1.subscriptions.resume(sub.id).status == "active"
        assert amounts(shop.invoices(customer)[0]) == [4900]


class TestItems:
    def test_can_be_added_changed_and_removed_by_themselves(self, shop):
        customer = shop.customer()
        sub = shop.subscribe(customer, "pro")
        items = shop.client.v1.subscription_items
        shop.sim.control.advance(31 * DAY // 2)
        added = items.create({"subscription": sub.id, "price": shop.prices["addon"], "quantity": 2})
        assert [
            one.amount for one in shop.client.v1.invoice_items.list({"customer": customer, "pending": True}).data
        ] == [1000]
        items.update(added.id, {"quantity": 3, "proration_behavior": "none"})
        assert shop.client.v1.invoices.create_preview({"subscription": sub.id}).total == 1000 + 4900 + 3000
        items.delete(added.id, {"proration_behavior": "none"})
        assert [one.price.id for one in items.list({"subscription": sub.id}).data] == [shop.prices["pro"]]

    def test_of_several_intervals_are_billed_each_at_its_own(self, shop):
        customer = shop.customer()
        sub = shop.subscribe(customer, "yearly", "calls")
        shop.use(customer, 2000)
        shop.to_period_end(sub, plus=HOUR)
        assert amounts(shop.invoices(customer)[0]) == [0, 400]

    def test_whose_meter_is_removed_are_billed_for_it_at_once(self, shop):
        customer = shop.customer()
        sub = shop.subscribe(customer, "pro", "calls")
        shop.use(customer, 3000)
        shop.sim.control.advance(60)
        gone = {"id": shop.item(sub, "calls"), "deleted": True}
        shop.client.v1.subscriptions.update(sub.id, {"items": [gone], "proration_behavior": "always_invoice"})
        assert amounts(shop.invoices(customer)[0]) == [0, 800]

    def test_whose_meter_is_removed_are_counted_at_that_moment(self, shop):
        customer = shop.customer()
        sub = shop.subscribe(customer, "pro", "calls")
        shop.use(customer, 3000)
        shop.sim.control.advance(60)
        shop.client.v1.subscriptions.update(sub.id, {"items": [{"id": shop.item(sub, "calls"), "deleted": True}]})
        shop.use(customer, 500, at=shop.sim.control.now() - 30)
        assert shop.client.v1.invoices.create_preview({"subscription": sub.id}).total == 800 + 4900

    def test_take_no_quantity_where_usage_counts(self, shop):
        sub = shop.subscribe(shop.customer(), "pro", "calls")
        with pytest.raises(stripe.InvalidRequestError, match="comes from usage"):
            shop.client.v1.subscription_items.update(shop.item(sub, "calls"), {"quantity": 2})


class TestPausedCollection:
    @pytest.mark.parametrize(
        ("behavior", "status"),
        [("keep_as_draft", "draft"), ("void", "void"), ("mark_uncollectible", "uncollectible")],
    )
    def test_makes_invoices_that_are_not_charged(self, shop, behavior, status):
        customer = shop.customer()
        sub = shop.subscribe(customer, "pro")
        shop.client.v1.subscriptions.update(sub.id, {"pause_collection": {"behavior": behavior}})
        shop.to_period_end(sub, plus=HOUR)
        assert shop.invoices(customer)[0].status == status
        shop.client.v1.subscriptions.update(sub.id, {"pause_collection": ""})
        shop.to_period_end(sub, plus=HOUR)
        assert shop.invoices(customer)[0].status == "paid"


class TestLists:
    def test_show_ten_lines_and_page_the_rest(self, shop):
        customer = shop.customer()
        items = [{"customer": customer, "amount": 100 + one, "currency": "usd"} for one in range(12)]
        for one in items:
            shop.client.v1.invoice_items.create(one)
        invoice = shop.client.v1.invoices.create(
            {"customer": customer, "pending_invoice_items_behavior": "include"}
        )
        assert (len(invoice.lines.data), invoice.lines.has_more) == (10, True)
        rest = shop.client.v1.invoices.line_items.list(invoice.id, {"starting_after": invoice.lines.data[-1].id})
        assert [one.amount for one in rest.data] == [110, 111]
        assert invoice.total == sum(one["amount"] for one in items)

    def test_of_subscriptions_leave_out_cancelled_ones(self, shop):
        customer = shop.customer()
        sub = shop.subscribe(customer, "pro")
        shop.client.v1.subscriptions.cancel(sub.id)
        listed = shop.client.v1.subscriptions.list
        assert (
            listed({"customer": customer}).data,
            len(listed({"customer": customer, "status": "all"}).data),
        ) == ([], 1)


class TestEntitlements:
    def test_follow_the_subscription(self, shop):
        v1 = shop.client.v1
        feature = v1.entitlements.features.create({"lookup_key": "sso", "name": "Single sign-on"}).id
        v1.products.features.create(shop.product, {"entitlement_feature": feature})
        customer = shop.customer()
        sub = shop.subscribe(customer, "pro")
        held = v1.entitlements.active_entitlements.list({"customer": customer}).data
        assert [one.lookup_key for one in held] == ["sso"]
        v1.subscriptions.cancel(sub.id)
        assert v1.entitlements.active_entitlements.list({"customer": customer}).data == []
        assert shop.events().count("entitlements.active_entitlement_summary.updated") == 2
