"""A report with something of everything."""

from devstack.demo.ledger import NOBODY
from devstack.demo.report import (
    Check,
    InvoiceLine,
    InvoiceView,
    Purchase,
    Report,
    StripeFigure,
    UsageRow,
)
from devstack.demo.traffic import Refusal

CURRENT = "GET /weather/v1/current/{city}"


def sample_report(**changes) -> Report:
    values = {
        "requests": 132,
        "broken": 0,
        "seconds": 1.5,
        "usage": (
            UsageRow("Nimbus Labs", CURRENT, 200, "served", 100),
            UsageRow("Nimbus Labs", CURRENT, 429, "quota_exceeded", 12),
            UsageRow(NOBODY, "weather", 401, "unknown_key", 20),
        ),
        "refusals": (
            Refusal(
                request="GET /weather/v1/current/oslo",
                status=429,
                code="quota_exceeded",
                headers={"Retry-After": "60", "RateLimit": '"quota";r=0;t=60'},
                body={"code": "quota_exceeded", "detail": "<script>alert(1)</script>"},
            ),
        ),
        "invoices": (
            InvoiceView(
                account="Nimbus Labs",
                plan="Starter",
                period="2026-11-23 to 2026-12-23",
                lines=(InvoiceLine("Starter plan", "$49.00", "$49.00"),),
                total="$49.00",
                billable_units=100,
                quota_units=1000,
            ),
        ),
        "checks": (Check("all requests", 132, {"events": 132, "rollups": 132}),),
        "notes": ("A note.",),
        "purchase": Purchase("Lumen Maps", 1.25, 40, (StripeFigure("the first invoice", 9_900, 9_900),)),
    }
    return Report(**(values | changes))
