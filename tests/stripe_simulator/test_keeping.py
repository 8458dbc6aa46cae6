"""What the local stack's simulator held is there again at its next start."""

import json
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

from devstack.stripe.embedded import EmbeddedStripe

MINE = {"km_installation": "main"}


def ask(sim: EmbeddedStripe, path: str, given: list[tuple[str, str]], *, key: str) -> dict:
    request = urllib.request.Request(
        f"{sim.url}{path}",
        data=urlencode(given).encode(),
        headers={"Authorization": f"Bearer {sim.api_key}", "Idempotency-Key": key},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


class TestKeeping:
    def test_goes_on_where_it_ended_with_what_was_to_happen(self, tmp_path: Path) -> None:
        path = tmp_path / "stripe.pickle"
        webhook = {"webhook_url": "http://127.0.0.1:9/a", "webhook_metadata": MINE, "keep": path}
        with EmbeddedStripe(**webhook) as first:
            customer = ask(first, "/v1/customers", [("name", "Ada")], key="c")["id"]
            ask(first, "/v1/payment_methods/pm_card_visa/attach", [("customer", customer)], key="a")
            product = ask(first, "/v1/products", [("name", "Team")], key="p")["id"]
            terms = [("currency", "usd"), ("unit_amount", "9900"), ("recurring[interval]", "month")]
            price = ask(first, "/v1/prices", [*terms, ("product", product)], key="r")["id"]
            wanted = [("customer", customer), ("items[0][price]", price), ("collection_method", "send_invoice")]
            wanted.append(("days_until_due", "30"))
            sub = ask(first, "/v1/subscriptions", wanted, key="s")["id"]
            invoices = len(first.control.dump("invoice")["invoice"])
        with EmbeddedStripe(**{**webhook, "webhook_url": "http://127.0.0.1:9/b"}) as second:
            kept = second.control.dump()
            assert [one["id"] for one in kept["subscription"]] == [sub]
            # the same endpoint, at its new address with its new secret
            (endpoint,) = kept["webhook_endpoint"]
            assert (endpoint["url"], endpoint["_secret"]) == ("http://127.0.0.1:9/b", second.webhook_secret)
            # what was asked before is answered as before, and new ids are new
            assert ask(second, "/v1/customers", [("name", "Ada")], key="c")["id"] == customer
            assert ask(second, "/v1/customers", [("name", "Bob")], key="d")["id"] != customer
            second.control.advance(32 * 86_400)
            assert len(second.control.dump("invoice")["invoice"]) == invoices + 1
            assert second.control.violations() == []

    def test_begins_empty_where_the_file_is_another_versions(self, tmp_path: Path) -> None:
        path = tmp_path / "stripe.pickle"
        path.write_bytes(b"nothing that could be read")
        with EmbeddedStripe(keep=path) as sim:
            assert sim.control.dump().get("customer", []) == []
