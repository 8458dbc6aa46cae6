"""Customers at edges: in the middle of an hour, in a zone off the full hour, after the end, with half a year."""

from devstack.year.asks import asks, cancels, changes, subscribes
from devstack.year.model import Bill, Story, at, bill, line, plain, use

ABE = Story(
    name="Abe",
    about="commits himself to a year, and cancels after half of it",
    plan_at_end="",
    steps=[
        subscribes("01-01", "committed", "subscribes to Committed, a year at a time"),
        cancels("07-01", "cancels at once, after 182 of 366 days", when="now", unused_time="credited"),
    ],
    usage=[use("04-10T14", 100_000)],
    bills=[
        bill("01-01", "start", line("1200.00", "Committed, the year"), total="1200.00"),
        bill(
            "07-01",
            "final",
            line("-603.28", "1,200.00 * 182 / 366 = 596.721…; 596.72 - 1,200.00 billed before"),
            line("1000.00", "100,000 requests * 0.01"),
            line("1486.34", "5,000.00 * 182 / 366 = 2,486.338… committed - 1,000.00 used"),
            total="1883.06",
        ),
    ],
    statuses=((at("07-01"), "canceled"),),
)

BEN = Story(
    name="Ben",
    about="has left when his last usage arrives",
    plan_at_end="",
    steps=[
        subscribes("01-01", "starter", "subscribes to Starter"),
        cancels("02-12", "cancels at the end of February", when="period_end"),
    ],
    usage=[
        use("02-24T06", 51_000),
        use("02-24T07", 5_000, arrives=at("03-09T12"), words="5,000 requests of 24 February arrive"),
    ],
    bills=[
        bill("01-01", "start", line("49.00", "Starter, January"), total="49.00"),
        *plain("Starter", "49.00", "02-01"),
        bill("03-01", "final", line("1.50", "51,000 - 50,000 = 1,000 requests * 0.0015"), total="1.50"),
        bill(
            "03-09",
            "final",
            line("7.50", "56,000 - 50,000 = 6,000 * 0.0015 = 9.00; 9.00 - 1.50 billed before"),
            total="7.50",
        ),
    ],
    statuses=((at("03-01"), "ended"),),
)

CAL = Story(
    name="Cal",
    about="has half of one month off, of which usage comes late",
    steps=[
        asks(
            "04-25",
            "/coupons",
            "a coupon is made: half of one period",
            code="half",
            name="Half a month",
            percent="50",
            duration="once",
        ),
        asks("04-25T01", "/promotion-codes", "and a code for it", code="HALF32", coupon="half"),
        subscribes("05-01", "starter", "subscribes to Starter with HALF32", promotion_code="HALF32"),
    ],
    usage=[
        use("05-10T14", 60_000),
        use("05-24T06", 10_000, arrives=at("06-09T12"), words="10,000 requests of 24 May arrive"),
    ],
    bills=[
        bill("05-01", "start", line("49.00", "Starter, May"), discount="24.50", total="24.50"),
        bill(
            "06-01",
            "period",
            line("15.00", "60,000 - 50,000 = 10,000 requests * 0.0015: May's, half of it"),
            line("49.00", "Starter, June, in full"),
            discount="7.50",
            total="56.50",
        ),
        bill(
            "07-01",
            "period",
            line("15.00", "May anew: 20,000 * 0.0015 = 30.00; 30.00 - 15.00 billed before; half of it, too"),
            line("0.00", "June, within the quota"),
            line("49.00", "Starter, July"),
            discount="7.50",
            total="56.50",
        ),
        *plain("Starter", "49.00", "08-01", "09-01", "10-01", "11-01", "12-01", "+01-01"),
    ],
)


def in_kathmandu() -> tuple[Bill, ...]:
    """Return plain bills of months that begin at 18:00 UTC of the last day of the one before."""
    return plain("Starter", "49.00", "06-30", "07-31", "08-31", "09-30", "10-31", "11-30", "12-31")


KIT = Story(
    name="Kit",
    about="lives in Kathmandu, where midnight is at 18:15 UTC: months begin in the full hour before",
    account={"time_zone": "Asia/Kathmandu"},
    steps=[subscribes("04-30T18:30", "starter", "subscribes to Starter on 1 May, at 00:15", anchor_day=1)],
    usage=[
        use("05-31T17", 50_990, words="50,990 requests in the last hour of May"),
        use("05-31T18", 30_000, words="30,000 requests in the first hour of June"),
    ],
    bills=[
        bill("04-30", "start", line("49.00", "Starter, May"), total="49.00"),
        bill(
            "05-31",
            "period",
            line("1.49", "50,990 - 50,000 = 990 requests * 0.0015 = 1.485, rounded up"),
            line("49.00", "Starter, June"),
            total="50.49",
        ),
        *in_kathmandu(),
    ],
)

LEA = Story(
    name="Lea",
    about="upgrades in the middle of a busy hour",
    plan_at_end="growth",
    steps=[
        subscribes("04-01", "starter", "subscribes to Starter"),
        changes("04-11T09:30", "growth", "upgrades to Growth at 9:30, after 249.5 of 720 hours"),
    ],
    usage=[
        use("04-10T14", 20_000),
        # 65 calls an even 56 seconds apart, the last five not billed: 33 begin before 9:30
        use("04-11T09", 60_000, words="60,000 requests from 9:00 to 10:00, 33,000 of them before 9:30"),
        use("04-17T20", 480_000),
    ],
    bills=[
        bill("04-01", "start", line("49.00", "Starter, April"), total="49.00"),
        bill(
            "04-11",
            "change",
            line("-32.02", "Starter: 49.00 * 249.5 / 720 = 16.979…; 16.98 - 49.00 billed before"),
            line("130.04", "Growth: 199.00 * 470.5 / 720 = 130.040…"),
            total="98.02",
        ),
        bill(
            "05-01",
            "period",
            line("4.50", "on Starter 20,000 + 33,000 - 50,000 = 3,000 requests * 0.0015"),
            line("4.20", "on Growth 27,000 + 480,000 - 500,000 = 7,000 requests * 0.0006"),
            line("199.00", "Growth, May"),
            total="207.70",
        ),
        *plain("Growth", "199.00", "06-01", "07-01", "08-01", "09-01", "10-01", "11-01", "12-01", "+01-01"),
    ],
)

STORIES = (ABE, BEN, CAL, KIT, LEA)
