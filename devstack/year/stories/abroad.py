"""Customers elsewhere: other clocks, and money with none or three digits after the point."""

from decimal import Decimal

from devstack.year.asks import asks, cancels, changes, pauses, resumes, subscribes
from devstack.year.model import Bill, Story, at, bill, line, plain, use

REN = Story(
    name="Ren",
    about="pays from the 30th by the clock of New York, where some months have an hour less or more",
    account={"time_zone": "America/New_York"},
    plan_at_end="growth",
    steps=[
        subscribes(
            "01-30T05", "starter", "subscribes to Starter, at midnight of the 30th in New York", anchor_day=30
        ),
        changes("03-15T04", "growth", "upgrades to Growth at midnight of 15 March, after 359 of 719 hours"),
        asks(
            "06-10",
            "/accounts/{account}/invoices?status=paid",
            "says that the API was down for a day",
            method="GET",
            save={"invoice": "items.0.id"},
        ),
        asks(
            "06-10T01",
            "/invoices/{invoice}/credit-notes",
            "has a credit note of $20.00 of what she has paid, and wants the money",
            reason="goodwill",
            amount="20.00",
            surplus="outside",
            idempotency_key="june",
        ),
        asks(
            "06-12", "/invoices/{invoice}/refunds", "is paid back the $20.00", amount="20.00", reference="transfer"
        ),
        pauses("11-07T05", "pauses from 1:00 at night on, when the clock is put back from 2:00"),
        resumes("11-07T07", "goes on at 2:00: that night the pause was two hours of 745"),
    ],
    usage=[
        use("03-15T03", 51_000, words="51,000 requests in the last hour before the upgrade"),
        use("03-15T04", 510_000, words="510,000 requests in the first hour after it"),
    ],
    bills=[
        bill("01-30", "start", line("49.00", "Starter, from 30 January"), total="49.00"),
        # midnight of 29 February, there being no 30th, and an hour of grace
        *plain("Starter", "49.00", "02-29"),
        bill(
            "03-15",
            "change",
            line("-24.53", "Starter: 49.00 * 359 / 719 = 24.465…; 24.47 - 49.00 billed before"),
            line("99.64", "Growth: 199.00 * 360 / 719 = 99.638…"),
            total="75.11",
        ),
        bill(
            "03-30",
            "period",
            line("1.50", "on Starter 51,000 - 50,000 = 1,000 requests * 0.0015"),
            line("6.00", "on Growth 510,000 - 500,000 = 10,000 requests * 0.0006"),
            line("199.00", "Growth, from 30 March"),
            total="206.50",
        ),
        *plain("Growth", "199.00", "04-30", "05-30", "06-30", "07-30", "08-30", "09-30", "10-30"),
        bill(
            "11-30",
            "period",
            line("-0.53", "Growth: 199.00 * 743 / 745 = 198.465…; 198.47 - 199.00 billed before"),
            line("0.00", "within the quota"),
            line("199.00", "Growth, from 30 November"),
            total="198.47",
        ),
        *plain("Growth", "199.00", "12-30"),
    ],
    statuses=((at("11-07T05"), "paused"), (at("11-07T07"), "active")),
    notes=(Decimal("20.00"),),
    paid_back=Decimal("20.00"),
)

RYO = Story(
    name="Ryo",
    about="pays in yen with tax, from the 29th by the clock of Tokyo, and has the rest paid out",
    account={"currency": "JPY", "time_zone": "Asia/Tokyo"},
    plan_at_end="",
    steps=[
        asks("01-02", "/tax-rates", "a tax of 10 % is set for Japan", name="Tax", percent="10", country="JP"),
        asks(
            "01-02T01",
            "/accounts/{account}/billing-profile",
            "says where he is",
            method="PUT",
            legal_name="Ryo Tenki",
            country="JP",
        ),
        subscribes("01-28T15", "packs", "subscribes to Packs, at midnight of the 29th in Tokyo", anchor_day=29),
        cancels("04-10T15", "cancels at once, after 13 of 31 days", when="now", unused_time="credited"),
        asks(
            "05-05",
            "/accounts/{account}/balance/adjustments",
            "is paid what was left, ¥683",
            amount="-683",
            reason="Paid out by transfer.",
        ),
    ],
    usage=[use("02-10T14", 12_345), use("04-05T14", 1_001)],
    bills=[
        bill("01-28", "start", line("1500", "Packs, from 29 January"), tax="150", total="1650"),
        bill(
            "02-28",
            "period",
            line("1625", "12,345 requests: 13 packs begun * 125"),
            line("1500", "Packs, from 29 February"),
            tax="313",  # 10 % of 3,125 = 312.5, rounded up
            total="3438",
        ),
        bill(
            "03-28",
            "period",
            line("0", "nothing used"),
            line("1500", "Packs, from 29 March"),
            tax="150",
            total="1650",
        ),
        bill(
            "04-10",
            "final",
            line("-871", "1,500 * 13 / 31 = 629.03…; 629 - 1,500 billed before"),
            line("250", "1,001 requests: 2 packs begun * 125"),
            tax="-62",  # 10 % of -621
            total="-683",
            balance="-683",
            due="0",
        ),
    ],
    statuses=((at("04-10T15"), "canceled"),),
)


def in_dinars(*days: str) -> tuple[Bill, ...]:
    """Return bills of Wholesale with nothing used."""
    lines = (line("0.000", "nothing used"), line("9.250", "Wholesale, the month that begins"))
    return tuple(bill(day, "period", *lines, total="9.250") for day in days)


SAM = Story(
    name="Sam",
    about="pays in dinars, of a thousand fils each, and once in two parts",
    account={"currency": "KWD"},
    plan_at_end="wholesale",
    steps=[
        subscribes("03-01", "wholesale", "subscribes to Wholesale"),
        asks(
            "05-02",
            "/accounts/{account}/invoices?status=open",
            "has not the whole amount",
            method="GET",
            save={"invoice": "items.0.id"},
        ),
        asks(
            "05-02T01", "/invoices/{invoice}/pay", "pays KWD 20.000 of it", amount="20.000", reference="first part"
        ),
    ],
    usage=[use("03-10T14", 40_000), use("04-10T14", 150_005)],
    bills=[
        bill("03-01", "start", line("9.250", "Wholesale, March"), total="9.250"),
        bill(
            "04-01",
            "period",
            line("12.000", "40,000 requests * 0.0003"),
            line("9.250", "Wholesale, April"),
            total="21.250",
        ),
        bill(
            "05-01",
            "period",
            line("22.501", "150,005 requests, all of them * 0.00015 = 22.50075"),
            line("9.250", "Wholesale, May"),
            total="31.751",
        ),
        *in_dinars("06-01", "07-01", "08-01", "09-01", "10-01", "11-01", "12-01", "+01-01"),
    ],
)

STORIES = (REN, RYO, SAM)
