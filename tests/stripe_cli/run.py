"""Stripe's own command line tool against the simulator: a client that shares nothing with us or with Stripe's SDK.

    python tests/stripe_cli/run.py            # installs the tool with npm if it is not there
    STRIPE_CLI=/usr/bin/stripe python tests/stripe_cli/run.py

The tool sends no API version and no idempotency keys, codes forms in its own way, and brings its own chains of
calls ("triggers") that make an event happen. Some of these are older than the API's version: they must be refused,
with the field named.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from devstack.stripe.embedded import EmbeddedStripe  # noqa: E402 - after the path is set

VERSION = "1.52.0"
FOLDER = Path(tempfile.gettempdir()) / f"km-stripe-cli-{VERSION}"
SECONDS = 60

TRIGGERS = (
    "customer.created",
    "customer.updated",
    "customer.deleted",
    "product.created",
    "product.updated",
    "price.created",
    "price.updated",
    "coupon.created",
    "tax_rate.created",
    "payment_method.attached",
    "invoiceitem.created",
    "invoice.created",
    "invoice.finalized",
    "invoice.paid",
    "invoice.payment_failed",
    "invoice.voided",
    "credit_note.created",
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "billing_portal.configuration.created",
    "billing_portal.session.created",
)
# the tool's chains that the API took in older versions only: the field that is gone
OUTDATED = {
    "promotion_code.created": "coupon",
    "customer.discount.created": "coupon",
    "subscription_schedule.created": "phases[0][iterations]",
    "subscription_schedule.released": "phases[0][iterations]",
}
# made by something else than an API call, or told to nobody by itself
NO_EVENT = {"billing_portal.session.created"}


class Failed(Exception):  # noqa: N818 - the outcome of a check
    pass


def find_tool() -> Path:
    """The tool of `STRIPE_CLI`, or the one npm installs beside other temporary files."""
    if given := os.environ.get("STRIPE_CLI"):
        return Path(given)
    found = sorted(FOLDER.glob("node_modules/@stripe/cli-*/bin/stripe"))
    if not found:
        npm = shutil.which("npm")
        if npm is None:
            raise Failed("npm is not installed; install it, or name the tool in STRIPE_CLI")
        print(f"installing @stripe/cli {VERSION}")
        # the binary lies in a package of its own: no script needs to run
        order = [npm, "install", "--prefix", str(FOLDER), "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run([*order, f"@stripe/cli@{VERSION}"], check=True, stdout=subprocess.DEVNULL)
        found = sorted(FOLDER.glob("node_modules/@stripe/cli-*/bin/stripe"))
    if not found:
        raise Failed("npm brought no binary for this machine")
    return found[0]


class Tool:
    """The command line tool, pointed at a simulator, with a home of its own."""

    def __init__(self, binary: Path, server: EmbeddedStripe, home: Path) -> None:
        self._binary = binary
        self._server = server
        self._home = home

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "HOME": str(self._home),
            "PATH": os.defpath,
            "STRIPE_CLI_TELEMETRY_OPTOUT": "1",
            # whatever else it would ask, such as for newer versions, stays on this machine
            "HTTPS_PROXY": "http://127.0.0.1:9",
        }
        where = ["--api-base", self._server.url, "--api-key", self._server.api_key]
        return subprocess.run(
            [str(self._binary), *words, *where],
            capture_output=True,
            text=True,
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
        )

    def json(self, *words: str) -> dict:
        done = self.run(*words)
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise Failed(f"{' '.join(words)}: {done.stdout} {done.stderr}") from None


def expect(condition: object, what: str) -> None:
    if not condition:
        raise Failed(what)


def check_calls(tool: Tool) -> None:
    """Single calls, and what they answer."""
    made = tool.json("products", "create", "--name", "Pro", "--id", "km_pro")
    expect(made["id"] == "km_pro", "a product with an own id")
    made = tool.json("post", "/v1/prices", "-d", "currency=usd", "-d", "product=km_pro", "-d", "unit_amount=500")
    expect(made["unit_amount_decimal"] == "500", "a price")
    listed = tool.json("get", "/v1/prices", "-d", "limit=1", "-d", "expand[]=data.product")
    expect(listed["data"][0]["product"]["name"] == "Pro", "an expanded list")
    refused = tool.json("prices", "create", "--currency", "usd", "--product", "none", "--unit-amount", "5")
    expect(refused["error"]["param"] == "product", "an unknown product is refused")
    refused = tool.json("post", "/v1/customers", "-d", "emial=x")
    expect(refused["error"]["code"] == "parameter_unknown", "an unknown parameter is refused")


def check_usage(tool: Tool, home: Path) -> None:
    """A usage plan as a chain of calls, a subscription to it, usage, and the invoice that would come of it."""
    chain = home / "usage.json"
    now = int(time.time())
    steps = [
        ("meter", "/v1/billing/meters", {"display_name": "Calls", "event_name": "calls",
                                         "default_aggregation": {"formula": "sum"}}),
        ("product", "/v1/products", {"name": "Usage"}),
        ("price", "/v1/prices", {
            "currency": "usd", "product": "${product:id}", "billing_scheme": "tiered", "tiers_mode": "graduated",
            "tiers": [{"up_to": 10, "unit_amount": 0}, {"up_to": "inf", "unit_amount_decimal": "12.5"}],
            "recurring": {"interval": "month", "usage_type": "metered", "meter": "${meter:id}"}}),
        ("customer", "/v1/customers", {"name": "Ada", "payment_method": "pm_card_visa",
                                       "invoice_settings": {"default_payment_method": "pm_card_visa"}}),
        ("subscription", "/v1/subscriptions", {"customer": "${customer:id}", "items": [{"price": "${price:id}"}]}),
        ("event", "/v1/billing/meter_events", {"event_name": "calls", "timestamp": now + 60, "payload": {
            "stripe_customer_id": "${customer:id}", "value": "30"}}),
        ("preview", "/v1/invoices/create_preview", {"subscription": "${subscription:id}"}),
    ]  # fmt: skip
    chain.write_text(
        json.dumps(
            {
                "_meta": {"template_version": 0},
                "fixtures": [
                    {"name": name, "path": path, "method": "post", "params": params}
                    for name, path, params in steps
                ],
            }
        )
    )
    done = tool.run("fixtures", str(chain))
    expect(done.returncode == 0, f"the chain of calls: {done.stderr}")
    found = tool.json("get", "/v1/subscriptions", "-d", "limit=1")["data"][0]
    expect(found["status"] == "active", "the subscription is active")
    preview = tool.json("post", "/v1/invoices/create_preview", "-d", f"subscription={found['id']}")
    # 30 calls, 10 of them free, 12.5 cents each
    expect(preview["total"] == 250, f"20 calls at 12.5 cents are 250 cents, not {preview['total']}")


def check_triggers(tool: Tool, server: EmbeddedStripe) -> None:
    """The tool's own chains: each must end in the event it is named after."""
    for name in TRIGGERS:
        done = tool.run("trigger", name)
        expect(done.returncode == 0, f"trigger {name}: {done.stderr}")
        happened = {one["type"] for one in server.control.dump("event")["event"]}
        expect(name in happened or name in NO_EVENT, f"trigger {name}: no such event came of it")
        print(f"  {name}")
    for name, param in OUTDATED.items():
        done = tool.run("trigger", name)
        expect(done.returncode != 0 and f'"param": "{param}"' in done.stderr, f"trigger {name}: {done.stderr}")
        print(f"  {name}: refused for {param}, which the API has no more")


def main() -> int:
    binary = find_tool()
    with EmbeddedStripe() as server, tempfile.TemporaryDirectory(prefix="km-stripe-cli-home-") as folder:
        home = Path(folder)
        tool = Tool(binary, server, home)
        print(tool.run("version").stdout.splitlines()[0])
        check_calls(tool)
        check_usage(tool, home)
        check_triggers(tool, server)
        calls = len(server.control.requests())
        expect(
            server.control.violations() == [], f"answers that break the contract: {server.control.violations()}"
        )
    print(f"{len(TRIGGERS)} triggers and {calls} calls went right; {len(OUTDATED)} outdated ones were refused")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failed:
        print(f"failed: {failed}", file=sys.stderr)
        sys.exit(1)
