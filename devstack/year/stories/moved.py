"""Customers whose plan gets a new version: one is moved to it, one is left out."""

from devstack.year.asks import asks, subscribes
from devstack.year.model import Story, bill, line, plain, use

ZOE = Story(
    name="Zoe",
    about="is moved to a new version of her plan, with all who are on the old one",
    plan_at_end="basic",
    steps=[
        subscribes("01-01", "basic", "subscribes to Basic: $19.00, 10,000 requests, then $0.003 each"),
        asks(
            "07-20",
            "/plans/basic/draft",
            "a new version is drafted: $25.00, 15,000 requests, then $0.003 each",
            method="PUT",
            quota={"units": 15_000, "on_exceed": "charge"},
            prices=[{"model": "flat", "amount": "25.00"}, {"model": "overage", "unit_amount": "0.003"}],
        ),
        asks("07-20T01", "/plans/basic/draft/publish", "and published: who has the old one keeps it"),
        asks(
            "07-21",
            "/plan-moves",
            "all are to be moved at their first period end from 1 September on",
            save={"move": "id"},
            from_plan="basic",
            timing="period_end",
            at="2032-09-01T00:00:00Z",
            notice_days=30,
        ),
    ],
    usage=[use("08-24T06", 12_000), use("09-10T14", 16_000)],
    bills=[
        bill("01-01", "start", line("19.00", "Basic, January"), total="19.00"),
        *plain("Basic", "19.00", "02-01", "03-01", "04-01", "05-01", "06-01", "07-01", "08-01"),
        bill(
            "09-01",
            "period",
            line("6.00", "12,000 - 10,000 = 2,000 requests * 0.003"),
            line("25.00", "the new Basic, September"),
            total="31.00",
        ),
        bill(
            "10-01",
            "period",
            line("3.00", "16,000 - 15,000 = 1,000 requests * 0.003"),
            line("25.00", "the new Basic, October"),
            total="28.00",
        ),
        *plain("Basic", "25.00", "11-01", "12-01", "+01-01"),
    ],
)

ZAC = Story(
    name="Zac",
    about="is on the same plan as Zoe, and is left out of the move",
    plan_at_end="basic",
    steps=[
        subscribes("07-01", "basic", "subscribes to Basic"),
        asks(
            "07-25",
            "/plan-moves/{Zoe_move}/exclude",
            "objects, and stays on the old version",
            subscription_id="{sub}",
            reason="His contract says so.",
        ),
    ],
    usage=[use("09-10T14", 12_000)],
    bills=[
        bill("07-01", "start", line("19.00", "Basic, July"), total="19.00"),
        *plain("Basic", "19.00", "08-01", "09-01"),
        bill(
            "10-01",
            "period",
            line("6.00", "12,000 - 10,000 = 2,000 requests * 0.003"),
            line("19.00", "Basic, October"),
            total="25.00",
        ),
        *plain("Basic", "19.00", "11-01", "12-01", "+01-01"),
    ],
)

# Zac after Zoe: the move that leaves him out is begun in her story
STORIES = (ZOE, ZAC)
