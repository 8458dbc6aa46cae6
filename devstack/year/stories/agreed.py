"""Customers with commitments, add-ons, pauses, and those who leave."""

from decimal import Decimal

from devstack.year.asks import adds, cancels, holds, keeps, pauses, removes, resumes, subscribes
from devstack.year.model import Bill, Story, at, bill, line, plain, use

FAY = Story(
    name="Fay",
    about="commits herself to $5,000 a year, and uses less",
    plan_at_end="committed",
    steps=[subscribes("01-01", "committed", "subscribes to Committed, a year at a time")],
    usage=[
        use("02-10T14", 150_000),
        use("05-10T14", 50_000),
        use("08-10T14", 123_456),
        use("11-10T14", 76_544),
    ],
    bills=[
        bill("01-01", "start", line("1200.00", "Committed, the year"), total="1200.00"),
        bill(
            "+01-01",
            "period",
            line("4000.00", "150,000 + 50,000 + 123,456 + 76,544 = 400,000 requests * 0.01"),
            line("1000.00", "5,000.00 committed - 4,000.00 used"),
            line("1200.00", "Committed, the next year"),
            total="6200.00",
        ),
    ],
)


def with_extra(amount: str, *days: str) -> tuple[Bill, ...]:
    """Return plain bills of Starter with an add-on of that price."""
    total = {"20.00": "69.00", "60.00": "109.00"}[amount]
    lines = (
        line("0.00", "within the quota"),
        line("49.00", "Starter, the month that begins"),
        line(amount, "the add-on, the month that begins"),
    )
    return tuple(bill(day, "period", *lines, total=total) for day in days)


GUS = Story(
    name="Gus",
    about="buys more quota as an add-on, then more of it, then none",
    steps=[
        subscribes("01-01", "starter", "subscribes to Starter"),
        adds("04-11", "extra", 1, "adds 100,000 requests, after 10 of 30 days"),
        holds("09-21", "extra", 3, "has it three times, after 20 of 30 days"),
        removes("11-12", "extra", "takes the add-on away at the end of November"),
    ],
    usage=[use("04-17T20", 160_000), use("09-24T06", 350_000), use("12-10T14", 60_000)],
    bills=[
        bill("01-01", "start", line("49.00", "Starter, January"), total="49.00"),
        *plain("Starter", "49.00", "02-01", "03-01", "04-01"),
        bill("04-11", "change", line("13.33", "20.00 * 20 of 30 days = 13.333…"), total="13.33"),
        bill(
            "05-01",
            "period",
            line("15.00", "160,000 - (50,000 + 100,000) = 10,000 requests * 0.0015"),
            line("49.00", "Starter, May"),
            line("20.00", "the add-on, May"),
            total="84.00",
        ),
        *with_extra("20.00", "06-01", "07-01", "08-01", "09-01"),
        bill(
            "09-21",
            "change",
            line("13.33", "20.00 * 20 of 30 days + 60.00 * 10 of 30 days = 33.333…; 33.33 - 20.00 billed before"),
            total="13.33",
        ),
        *with_extra("60.00", "10-01", "11-01"),
        *plain("Starter", "49.00", "12-01"),
        bill(
            "+01-01",
            "period",
            line("15.00", "60,000 - 50,000 = 10,000 requests * 0.0015: the add-on is gone"),
            line("49.00", "Starter, January"),
            total="64.00",
        ),
    ],
)

HAL = Story(
    name="Hal",
    about="pauses for ten days of June",
    steps=[
        subscribes("01-01", "starter", "subscribes to Starter"),
        pauses("06-11", "pauses"),
        resumes("06-21", "goes on"),
    ],
    usage=[use("06-10T14", 30_000), use("06-24T06", 30_000)],
    bills=[
        bill("01-01", "start", line("49.00", "Starter, January"), total="49.00"),
        *plain("Starter", "49.00", "02-01", "03-01", "04-01", "05-01", "06-01"),
        bill(
            "07-01",
            "period",
            line("-16.33", "Starter for 20 of 30 days: 49.00 * 20 / 30 = 32.666…; 32.67 - 49.00 billed before"),
            line("15.00", "30,000 + 30,000 - 50,000 = 10,000 requests * 0.0015"),
            line("49.00", "Starter, July"),
            total="47.67",
        ),
        *plain("Starter", "49.00", "08-01", "09-01", "10-01", "11-01", "12-01", "+01-01"),
    ],
    statuses=((at("06-11"), "paused"), (at("06-21"), "active")),
)

QUIN = Story(
    name="Quin",
    about="cancels at once, and has the unused time credited",
    plan_at_end="",
    balance_at_end=Decimal("14.67"),
    steps=[
        subscribes("06-01", "starter", "subscribes to Starter"),
        cancels("09-11", "cancels at once, after 10 of 30 days", when="now", unused_time="credited"),
    ],
    usage=[use("09-10T14", 62_000)],
    bills=[
        bill("06-01", "start", line("49.00", "Starter, June"), total="49.00"),
        *plain("Starter", "49.00", "07-01", "08-01", "09-01"),
        bill(
            "09-11",
            "final",
            line("-32.67", "Starter for 10 of 30 days: 16.33 - 49.00 billed before"),
            line("18.00", "62,000 - 50,000 = 12,000 requests * 0.0015"),
            total="-14.67",
            balance="-14.67",
            due="0.00",
        ),
    ],
    statuses=((at("09-11"), "canceled"),),
)

REX = Story(
    name="Rex",
    about="cancels, changes his mind, and cancels again",
    plan_at_end="",
    steps=[
        subscribes("01-01", "starter", "subscribes to Starter"),
        cancels("03-12", "cancels at the end of March", when="period_end"),
        keeps("03-20", "takes that back"),
        cancels("10-12", "cancels at the end of October", when="period_end"),
    ],
    usage=[use("10-24T06", 61_000)],
    bills=[
        bill("01-01", "start", line("49.00", "Starter, January"), total="49.00"),
        *plain(
            "Starter", "49.00", "02-01", "03-01", "04-01", "05-01", "06-01", "07-01", "08-01", "09-01", "10-01"
        ),
        bill("11-01", "final", line("16.50", "61,000 - 50,000 = 11,000 requests * 0.0015"), total="16.50"),
    ],
    statuses=((at("11-01"), "ended"),),
)

STORIES = (FAY, GUS, HAL, QUIN, REX)
