"""Customers who change plans back and forth, between plans that reckon quotas in other ways."""

from decimal import Decimal

from devstack.year.asks import asks, changes, subscribes
from devstack.year.model import Story, at, bill, line, plain, use

TESS = Story(
    name="Tess",
    about="changes to Scale, which carries use on and has a setup fee, back to Starter, and to Scale again",
    plan_at_end="scale",
    steps=[
        subscribes("06-01", "starter", "subscribes to Starter"),
        changes("06-11", "scale", "changes to Scale, after 10 of 30 days"),
        changes("08-11", "starter", "changes to Starter, after 10 of 31 days"),
        changes("09-11", "scale", "changes to Scale, after 10 of 30 days"),
    ],
    usage=[use("06-10T14", 40_000), use("06-17T20", 90_000), use("07-10T14", 150_000)],
    bills=[
        bill("06-01", "start", line("49.00", "Starter, June"), total="49.00"),
        bill(
            "06-11",
            "change",
            line("-32.67", "Starter for 10 of 30 days: 16.33 - 49.00 billed before"),
            line("100.00", "the setup fee, once"),
            line("20.00", "Scale for 20 of 30 days: 30.00 * 20 / 30"),
            total="87.33",
        ),
        bill(
            "07-01",
            "period",
            line("0.00", "on Starter 40,000, within the quota"),
            line("75.00", "on Scale requests 40,001 to 130,000: 60,000 * 0.001 + 30,000 * 0.0005"),
            line("30.00", "Scale, July"),
            total="105.00",
        ),
        bill(
            "08-01",
            "period",
            line("125.00", "150,000 requests: 100,000 * 0.001 + 50,000 * 0.0005"),
            line("30.00", "Scale, August"),
            total="155.00",
        ),
        bill(
            "08-11",
            "change",
            line("-20.32", "Scale for 10 of 31 days: 30.00 * 10 / 31 = 9.677…; 9.68 - 30.00 billed before"),
            line("33.19", "Starter for 21 of 31 days: 49.00 * 21 / 31 = 33.193…"),
            total="12.87",
        ),
        bill(
            "09-01",
            "period",
            line("0.00", "nothing used on Scale"),
            line("0.00", "nor on Starter"),
            line("49.00", "Starter, September"),
            total="49.00",
        ),
        bill(
            "10-01",
            "period",
            line("-32.67", "Starter for 10 of 30 days of September: 16.33 - 49.00 billed before"),
            line("0.00", "nothing used on Starter"),
            line("20.00", "Scale for 20 of 30 days; no setup fee again, and all in all cheaper: it waited"),
            line("0.00", "nothing used on Scale"),
            line("30.00", "Scale, October"),
            total="17.33",
        ),
        *plain("Scale", "30.00", "11-01", "12-01", "+01-01"),
    ],
)

UMA = Story(
    name="Uma",
    about="changes to Team, which gives a new customer as much of its quota as is left of the month",
    plan_at_end="team",
    steps=[
        subscribes("11-01", "starter", "subscribes to Starter"),
        changes("11-11", "team", "changes to Team, after 10 of 30 days"),
    ],
    usage=[use("11-10T14", 55_000), use("11-17T20", 45_000), use("12-10T14", 70_000)],
    bills=[
        bill("11-01", "start", line("49.00", "Starter, November"), total="49.00"),
        bill(
            "11-11",
            "change",
            line("-32.67", "Starter for 10 of 30 days: 16.33 - 49.00 billed before"),
            line("40.00", "Team for 20 of 30 days: 60.00 * 20 / 30"),
            total="7.33",
        ),
        bill(
            "12-01",
            "period",
            line("7.50", "on Starter 55,000 - 50,000 = 5,000 requests * 0.0015"),
            line("10.00", "on Team 45,000 - 60,000 * 20 / 30 = 5,000 requests * 0.002"),
            line("60.00", "Team, December"),
            total="77.50",
        ),
        bill(
            "+01-01",
            "period",
            line("20.00", "70,000 - 60,000 = 10,000 requests * 0.002"),
            line("60.00", "Team, January"),
            total="80.00",
        ),
    ],
)

WES = Story(
    name="Wes",
    about="gets two credit notes out of goodwill: one before he has paid, one after",
    steps=[
        subscribes("01-01", "starter", "subscribes to Starter"),
        asks(
            "02-08",
            "/accounts/{account}/invoices?status=open",
            "says that he waited long for an answer",
            method="GET",
            save={"invoice": "items.0.id"},
        ),
        asks(
            "02-08T01",
            "/invoices/{invoice}/credit-notes",
            "has a credit note of $10.00: $39.00 are left to pay",
            reason="goodwill",
            amount="10.00",
            idempotency_key="february",
        ),
        asks(
            "03-10",
            "/accounts/{account}/invoices?status=paid",
            "says so again",
            method="GET",
            save={"invoice": "items.0.id"},
        ),
        asks(
            "03-10T01",
            "/invoices/{invoice}/credit-notes",
            "has a credit note of $5.00 of what he has paid: it goes to his balance",
            reason="goodwill",
            amount="5.00",
            idempotency_key="march",
        ),
    ],
    bills=[
        bill("01-01", "start", line("49.00", "Starter, January"), total="49.00"),
        bill(
            "02-01",
            "period",
            line("0.00", "within the quota"),
            line("49.00", "Starter, February"),
            total="49.00",
            credited="10.00",
        ),
        *plain("Starter", "49.00", "03-01"),
        bill(
            "04-01",
            "period",
            line("0.00", "within the quota"),
            line("49.00", "Starter, April"),
            balance="5.00",
            total="49.00",
            due="44.00",
        ),
        *plain(
            "Starter", "49.00", "05-01", "06-01", "07-01", "08-01", "09-01", "10-01", "11-01", "12-01", "+01-01"
        ),
    ],
    unpaid=[at("02-06")],
    notes=(Decimal("10.00"), Decimal("5.00")),
)

XAN = Story(
    name="Xan",
    about="has a trial that is extended, and ends it early",
    steps=[
        subscribes("03-01", "starter", "begins a trial of Starter, to 15 March", trial=True),
        asks(
            "03-10",
            "/subscriptions/{sub}/extend-trial",
            "has it extended to 25 March",
            ends_at="2032-03-25T00:00:00Z",
        ),
        asks(
            "03-20T12:20", "/subscriptions/{sub}/end-trial", "ends it, at 12:20: months begin at 12:00 from now on"
        ),
    ],
    usage=[use("03-17T20", 70_000, free=True), use("04-20T11", 51_000), use("04-20T12", 51_001)],
    bills=[
        bill("03-20", "start", line("49.00", "Starter, from 20 March, 12:00"), total="49.00"),
        bill(
            "04-20",
            "period",
            line("1.50", "to 12:00: 51,000 - 50,000 = 1,000 requests * 0.0015"),
            line("49.00", "Starter, the month that begins"),
            total="50.50",
        ),
        bill(
            "05-20",
            "period",
            line("1.50", "from 12:00: 51,001 - 50,000 = 1,001 requests * 0.0015 = 1.5015"),
            line("49.00", "Starter, the month that begins"),
            total="50.50",
        ),
        *plain("Starter", "49.00", "06-20", "07-20", "08-20", "09-20", "10-20", "11-20", "12-20"),
    ],
    statuses=((at("03-20"), "active"),),
)

YUL = Story(
    name="Yul",
    about="has $10.00 off each month, and upgrades in the middle of one",
    plan_at_end="growth",
    steps=[
        asks(
            "03-21",
            "/coupons",
            "a coupon is made: $10.00 off each period",
            code="ten",
            name="Ten off",
            amount="10.00",
            currency="USD",
            duration="forever",
        ),
        asks("03-21T01", "/promotion-codes", "and a code for it", code="TEN32", coupon="ten"),
        subscribes("04-01", "starter", "subscribes to Starter with TEN32", promotion_code="TEN32"),
        changes("06-11", "growth", "upgrades to Growth, after 10 of 30 days"),
    ],
    usage=[use("04-17T20", 60_000)],
    bills=[
        bill("04-01", "start", line("49.00", "Starter, April"), discount="10.00", total="39.00"),
        bill(
            "05-01",
            "period",
            line("15.00", "60,000 - 50,000 = 10,000 requests * 0.0015; April's 10.00 are taken off already"),
            line("49.00", "Starter, May"),
            discount="10.00",
            total="54.00",
        ),
        bill(
            "06-01",
            "period",
            line("0.00", "within the quota"),
            line("49.00", "Starter, June"),
            discount="10.00",
            total="39.00",
        ),
        bill(
            "06-11",
            "change",
            line("-32.67", "Starter for 10 of 30 days: 16.33 - 49.00 billed before; June's 10.00 stay taken off"),
            line("132.67", "Growth for 20 of 30 days"),
            total="100.00",
        ),
        bill(
            "07-01",
            "period",
            line("0.00", "on Starter, within the quota"),
            line("0.00", "on Growth, within the quota"),
            line("199.00", "Growth, July"),
            discount="10.00",
            total="189.00",
        ),
        *(
            bill(
                day,
                "period",
                line("0.00", "within the quota"),
                line("199.00", "Growth, the month that begins"),
                discount="10.00",
                total="189.00",
            )
            for day in ("08-01", "09-01", "10-01", "11-01", "12-01", "+01-01")
        ),
    ],
)

STORIES = (TESS, UMA, WES, XAN, YUL)
