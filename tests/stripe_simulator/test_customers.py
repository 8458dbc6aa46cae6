"""Customers, lists, expanding and searching, driven by Stripe's SDK."""

import pytest
import stripe

from devstack.stripe.embedded import EmbeddedStripe


class TestCustomers:
    def test_a_deleted_one_is_shown_as_deleted_and_can_be_used_no_more(self, client: stripe.StripeClient) -> None:
        made = client.v1.customers.create({"email": "a@example.test", "metadata": {"km_object": "acc_1"}})
        client.v1.customers.delete(made.id)
        gone = client.v1.customers.retrieve(made.id)
        assert gone.deleted
        assert "email" not in gone
        with pytest.raises(stripe.InvalidRequestError) as refused:
            client.v1.customers.update(made.id, {"email": "b@example.test"})
        assert refused.value.http_status == 404
        assert client.v1.customers.list().data == []

    def test_fields_are_set_and_cleared(self, client: stripe.StripeClient) -> None:
        made = client.v1.customers.create({"name": "A", "address": {"country": "DE", "city": "Bonn"}})
        assert made.address is not None
        assert (made.address.city, made.address.line1) == ("Bonn", None)
        moved = client.v1.customers.update(made.id, {"address": {"country": "FR", "city": "Lyon", "state": ""}})
        assert moved.address is not None
        assert (moved.address.city, moved.address.state) == ("Lyon", None)
        assert client.v1.customers.update(made.id, {"address": ""}).address is None

    def test_tax_and_tax_ids_are_shown_when_expanded(self, client: stripe.StripeClient) -> None:
        made = client.v1.customers.create(
            {"address": {"country": "DE"}, "tax_id_data": [{"type": "eu_vat", "value": "DE123456789"}]}
        )
        assert "tax" not in made
        shown = client.v1.customers.retrieve(made.id, {"expand": ["tax", "tax_ids"]})
        assert shown.tax is not None
        assert shown.tax.automatic_tax == "supported"
        assert shown.tax_ids is not None
        assert [one.value for one in shown.tax_ids.data] == ["DE123456789"]

    def test_search_finds_by_metadata_and_fields(self, client: stripe.StripeClient) -> None:
        first = client.v1.customers.create({"email": "a@example.test", "metadata": {"km_installation": "main"}})
        client.v1.customers.create({"email": "b@example.test", "metadata": {"km_installation": "other"}})

        def found(query: str) -> list[str]:
            return [one.id for one in client.v1.customers.search({"query": query}).data]

        assert found("metadata['km_installation']:'main'") == [first.id]
        assert found("metadata['km_installation']:'main' AND email:'a@example.test'") == [first.id]
        assert found("metadata['km_installation']:'main' AND email:'b@example.test'") == []
        assert len(found("email:'a@example.test' OR email:'b@example.test'")) == 2
        assert len(found("-email:'a@example.test'")) == 1
        with pytest.raises(stripe.InvalidRequestError):
            found("email is a@example.test")


class TestLists:
    def test_they_are_paged_newest_first_without_gaps(self, client: stripe.StripeClient) -> None:
        made = [client.v1.customers.create({"name": str(number)}).id for number in range(7)]
        page = client.v1.customers.list({"limit": 3})
        assert [one.id for one in page.data] == made[:3:-1]
        assert page.has_more
        assert [one.id for one in page.auto_paging_iter()] == made[::-1]
        back = client.v1.customers.list({"limit": 3, "ending_before": made[0]})
        assert [one.id for one in back.data] == [made[3], made[2], made[1]]
        assert back.has_more

    @pytest.mark.parametrize("params", [{"limit": 0}, {"limit": 101}, {"starting_after": "cus_none"}])
    def test_pages_that_cannot_be_are_refused(self, client: stripe.StripeClient, params: dict) -> None:
        with pytest.raises(stripe.InvalidRequestError):
            client.v1.customers.list(params)

    def test_they_can_be_cut_by_time(self, sim: EmbeddedStripe, client: stripe.StripeClient, now: int) -> None:
        client.v1.customers.create({"name": "early"})
        sim.control.advance(100)
        client.v1.customers.create({"name": "late"})
        assert [one.name for one in client.v1.customers.list({"created": {"gt": now}}).data] == ["late"]
        assert [one.name for one in client.v1.customers.list({"created": {"lt": now + 100}}).data] == ["early"]

    def test_what_cannot_be_expanded_is_refused(self, client: stripe.StripeClient) -> None:
        made = client.v1.customers.create({"name": "A"})
        for path in ("name", "nothing", "data.name"):
            with pytest.raises(stripe.InvalidRequestError) as refused:
                client.v1.customers.retrieve(made.id, {"expand": [path]})
            assert refused.value.param == "expand"


class TestKeys:
    @pytest.mark.parametrize("key", ["sk_live_x", "rk_live_x", "pk_test_x", "nonsense"])
    def test_only_secret_test_keys_are_taken(self, client_with, key: str) -> None:
        with pytest.raises(stripe.AuthenticationError):
            client_with(api_key=key).v1.customers.list()

    def test_restricted_test_keys_are_taken(self, client_with) -> None:
        assert client_with(api_key="rk_test_x").v1.customers.list().data == []

    def test_another_api_version_is_refused(self, client: stripe.StripeClient) -> None:
        with pytest.raises(stripe.InvalidRequestError, match=r"2026-10-28\.endive"):
            client.v1.customers.list({}, {"stripe_version": "2024-06-20"})

    def test_what_the_simulator_has_not_is_said(self, client: stripe.StripeClient) -> None:
        with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL"):
            client.v1.payouts.list()


class TestTestClocks:
    def test_time_passes_for_its_own_customers_only(
        self, sim: EmbeddedStripe, client: stripe.StripeClient, now: int
    ) -> None:
        clock = client.v1.test_helpers.test_clocks.create({"frozen_time": now - 1_000})
        old = client.v1.customers.create({"test_clock": clock.id})
        assert old.created == now - 1_000
        assert client.v1.test_helpers.test_clocks.advance(clock.id, {"frozen_time": now}).status == "advancing"
        assert client.v1.test_helpers.test_clocks.retrieve(clock.id).status == "ready"
        client.v1.test_helpers.test_clocks.advance(clock.id, {"frozen_time": now + 50})
        assert client.v1.customers.create({"test_clock": clock.id}).created == now + 50
        assert client.v1.customers.create({}).created == now
        assert sim.control.now() == now
        assert len(client.v1.customers.list().data) == 1
        assert len(client.v1.customers.list({"test_clock": clock.id}).data) == 2

    def test_it_never_goes_back_and_has_three_customers_at_most(
        self, client: stripe.StripeClient, now: int
    ) -> None:
        clock = client.v1.test_helpers.test_clocks.create({"frozen_time": now})
        with pytest.raises(stripe.InvalidRequestError):
            client.v1.test_helpers.test_clocks.advance(clock.id, {"frozen_time": now})
        for _ in range(3):
            client.v1.customers.create({"test_clock": clock.id})
        with pytest.raises(stripe.InvalidRequestError):
            client.v1.customers.create({"test_clock": clock.id})
        client.v1.test_helpers.test_clocks.delete(clock.id)
        assert client.v1.customers.list({"test_clock": clock.id}).data == []
