"""Customers who try, begin, grow and shrink."""

from devstack.year.asks import asks, cancels, changes, discards_change, subscribes
from devstack.year.model import Story, at, bill, line, plain, use

ADA = Story(
    name="Ada",
    about="begins on Free, brings a friend, and upgrades in June",
    steps=[
        subscribes("01-01", "free", "subscribes to Free"),
        asks("04-20", "/accounts/{account}/referral-code", "asks for a referral code", save={"code": "code"}),
        changes("06-11", "starter", "upgrades to Starter"),
    ],
    usage=[
        use("01-10T14", 900, free=True),
        use("02-10T14", 1_000, free=True, refused=40, words="1,000 requests, and 40 refused above the quota"),
        use("06-24T06", 40_000),
        use("11-10T14", 61_001),
    ],
    bills=[
        bill(
            "06-11",
            "change",
            line("32.67", "Starter for 20 of 30 days: 49.00 * 20 / 30 = 32.666…"),
            balance="25.00",
            total="32.67",
            due="7.67",
        ),
        *plain("Starter", "49.00", "07-01", "08-01", "09-01", "10-01", "11-01"),
        bill(
            "12-01",
            "period",
            line("16.50", "61,001 - 50,000 = 11,001 requests * 0.0015 = 16.5015"),
            line("49.00", "Starter, December"),
            total="65.50",
        ),
        *plain("Starter", "49.00", "+01-01"),
    ],
)

BO = Story(
    name="Bo",
    about="tries Starter for 14 days and stays",
    steps=[subscribes("01-10", "starter", "begins a trial of Starter", trial=True)],
    usage=[use("01-17T20", 60_000, free=True), use("03-10T14", 62_345)],
    bills=[
        bill("01-24", "start", line("49.00", "Starter, from the end of the trial"), total="49.00"),
        *plain("Starter", "49.00", "02-24"),
        bill(
            "03-24",
            "period",
            line("18.52", "62,345 - 50,000 = 12,345 requests * 0.0015 = 18.5175"),
            line("49.00", "Starter, the month that begins"),
            total="67.52",
        ),
        *plain(
            "Starter", "49.00", "04-24", "05-24", "06-24", "07-24", "08-24", "09-24", "10-24", "11-24", "12-24"
        ),
    ],
    statuses=((at("01-24"), "active"),),
)

CY = Story(
    name="Cy",
    about="tries Starter and leaves before the trial is over",
    plan_at_end="",
    steps=[
        subscribes("02-03", "starter", "begins a trial of Starter", trial=True),
        cancels("02-12", "cancels; the trial goes on until it ends", when="period_end"),
    ],
    usage=[use("02-10T14", 10_000, free=True)],
    statuses=((at("02-17"), "ended"),),
)

DEE = Story(
    name="Dee",
    about="upgrades in the middle of a month",
    plan_at_end="growth",
    steps=[
        subscribes("01-01", "starter", "subscribes to Starter"),
        changes("04-11", "growth", "upgrades to Growth, after 10 of 30 days"),
    ],
    usage=[use("02-10T14", 62_345), use("04-10T14", 51_000), use("04-17T20", 510_000)],
    bills=[
        bill("01-01", "start", line("49.00", "Starter, January"), total="49.00"),
        *plain("Starter", "49.00", "02-01"),
        bill(
            "03-01",
            "period",
            line("18.52", "62,345 - 50,000 = 12,345 requests * 0.0015 = 18.5175"),
            line("49.00", "Starter, March"),
            total="67.52",
        ),
        *plain("Starter", "49.00", "04-01"),
        bill(
            "04-11",
            "change",
            line("-32.67", "Starter for 10 of 30 days: 49.00 * 10 / 30 = 16.333…; 16.33 - 49.00 billed before"),
            line("132.67", "Growth for 20 of 30 days: 199.00 * 20 / 30 = 132.666…"),
            total="100.00",
        ),
        bill(
            "05-01",
            "period",
            line("1.50", "on Starter 51,000 - 50,000 = 1,000 requests * 0.0015"),
            line("6.00", "on Growth 510,000 - 500,000 = 10,000 requests * 0.0006"),
            line("199.00", "Growth, May"),
            total="206.50",
        ),
        *plain("Growth", "199.00", "06-01", "07-01", "08-01", "09-01", "10-01", "11-01", "12-01", "+01-01"),
    ],
)

EVE = Story(
    name="Eve",
    about="plans a downgrade, takes it back, and plans it again",
    steps=[
        subscribes("01-01", "growth", "subscribes to Growth"),
        changes("05-10", "starter", "plans to go down to Starter on 1 June", when="period_end"),
        discards_change("05-20", "takes that back"),
        changes("08-12", "starter", "plans to go down to Starter on 1 September", when="period_end"),
    ],
    usage=[use("08-24T06", 600_000), use("09-10T14", 50_000), use("10-10T14", 50_001)],
    bills=[
        bill("01-01", "start", line("199.00", "Growth, January"), total="199.00"),
        *plain("Growth", "199.00", "02-01", "03-01", "04-01", "05-01", "06-01", "07-01", "08-01"),
        bill(
            "09-01",
            "period",
            line("60.00", "600,000 - 500,000 = 100,000 requests * 0.0006; the quota of Growth held to the end"),
            line("49.00", "Starter, September"),
            total="109.00",
        ),
        *plain("Starter", "49.00", "10-01", "11-01", "12-01", "+01-01"),
    ],
)

STORIES = (ADA, BO, CY, DEE, EVE)
