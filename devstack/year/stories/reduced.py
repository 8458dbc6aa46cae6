"""Customers with discounts, credits, taxes and another currency."""

from collections.abc import Sequence

from devstack.year.asks import asks, subscribes
from devstack.year.model import Bill, Story, bill, line, plain, use


def founding(*days: str) -> Sequence[Bill]:
    """Return plain bills of Starter with a quarter taken off."""
    lines = (line("0.00", "within the quota"), line("49.00", "Starter, the month that begins"))
    return [bill(day, "period", *lines, discount="12.25", total="36.75") for day in days]


LOU = Story(
    name="Lou",
    about="is the founding member: a quarter less in the first year",
    steps=[
        asks(
            "01-01", "/founding-offer", "an offer is opened: 25 % off, one account", percent="25", max_accounts=1
        ),
        subscribes("01-01", "starter", "subscribes to Starter"),
    ],
    usage=[use("03-10T14", 62_345), use("12-10T14", 60_000)],
    bills=[
        bill("01-01", "start", line("49.00", "Starter, January"), discount="12.25", total="36.75"),
        *founding("02-01", "03-01"),
        bill(
            "04-01",
            "period",
            line("18.52", "62,345 - 50,000 = 12,345 requests * 0.0015 = 18.5175"),
            line("49.00", "Starter, April"),
            discount="16.88",  # a quarter of 67.52
            total="50.64",
        ),
        *founding("05-01", "06-01", "07-01", "08-01", "09-01", "10-01", "11-01", "12-01"),
        bill(
            "+01-01",
            "period",
            line("15.00", "60,000 - 50,000 = 10,000 requests * 0.0015: December's, a quarter less"),
            line("49.00", "Starter, January: the first year is over, nothing is taken off"),
            discount="3.75",
            total="60.25",
        ),
    ],
)

MAX = Story(
    name="Max",
    about="has a promotion code: 20 % off three months",
    plan_at_end="growth",
    steps=[
        asks(
            "03-20",
            "/coupons",
            "a coupon is made: 20 % off three periods",
            code="spring",
            name="Spring offer",
            percent="20",
            duration="periods",
            count=3,
        ),
        asks("03-20T01", "/promotion-codes", "and a code for it", code="SPRING32", coupon="spring"),
        subscribes("04-01", "growth", "subscribes to Growth with SPRING32", promotion_code="SPRING32"),
    ],
    usage=[use("04-17T20", 510_000), use("06-24T06", 520_000), use("08-10T14", 501_000)],
    bills=[
        bill("04-01", "start", line("199.00", "Growth, April"), discount="39.80", total="159.20"),
        bill(
            "05-01",
            "period",
            line("6.00", "510,000 - 500,000 = 10,000 requests * 0.0006"),
            line("199.00", "Growth, May"),
            discount="41.00",
            total="164.00",
        ),
        bill(
            "06-01",
            "period",
            line("0.00", "within the quota"),
            line("199.00", "Growth, June"),
            discount="39.80",
            total="159.20",
        ),
        bill(
            "07-01",
            "period",
            line("12.00", "520,000 - 500,000 = 20,000 requests * 0.0006: June's, 20 % less"),
            line("199.00", "Growth, July: the fourth month, nothing is taken off"),
            discount="2.40",
            total="208.60",
        ),
        *plain("Growth", "199.00", "08-01"),
        bill(
            "09-01",
            "period",
            line("0.60", "501,000 - 500,000 = 1,000 requests * 0.0006"),
            line("199.00", "Growth, September"),
            total="199.60",
        ),
        *plain("Growth", "199.00", "10-01", "11-01", "12-01", "+01-01"),
    ],
)

NIA = Story(
    name="Nia",
    about="was brought by Ada, who has $25.00 for it with Nia's first payment",
    steps=[
        asks("04-21", "/referrals/rewards/USD", "a reward is set: $25.00", method="PUT", amount="25.00"),
        asks("04-21T01", "/referrals", "names Ada's code", account_id="{account}", code="{Ada_code}"),
        subscribes("05-01", "starter", "subscribes to Starter"),
    ],
    bills=[
        bill("05-01", "start", line("49.00", "Starter, May"), total="49.00"),
        *plain("Starter", "49.00", "06-01", "07-01", "08-01", "09-01", "10-01", "11-01", "12-01", "+01-01"),
    ],
)


def used(day: str, amount: str, why: str, *, from_credits: str, due: str) -> Bill:
    return bill(day, "period", line(amount, why), total=amount, credits=from_credits, due=due)


OTO = Story(
    name="Oto",
    about="pays ahead: $10.00 are a gift until 1 March, $50.00 are bought",
    plan_at_end="prepaid",
    steps=[
        subscribes("01-01", "prepaid", "subscribes to Prepaid"),
        asks(
            "01-01",
            "/accounts/{account}/credits/grants",
            "is given $10.00 of credits until 1 March",
            amount="10.00",
            expires_at="2032-03-01T00:00:00Z",
        ),
        asks("01-02", "/accounts/{account}/credits/purchases", "buys $50.00 of credits", amount="50.00"),
    ],
    usage=[
        use("01-10T14", 600),
        use("02-10T14", 300),
        use("03-10T14", 2_000),
        use("05-10T14", 2_500),
        use("06-10T14", 700),
    ],
    bills=[
        bill("01-02", "manual", line("50.00", "credits, paid on 6 January"), total="50.00"),
        used(
            "02-01",
            "6.00",
            "600 requests * 0.01; from the gift, which expires first",
            from_credits="6.00",
            due="0.00",
        ),
        used("03-01", "3.00", "300 * 0.01; the gift's last 1.00 expires", from_credits="3.00", due="0.00"),
        used("04-01", "20.00", "2,000 * 0.01; from what was bought", from_credits="20.00", due="0.00"),
        used("06-01", "25.00", "2,500 * 0.01; 5.00 are left", from_credits="25.00", due="0.00"),
        used(
            "07-01",
            "7.00",
            "700 * 0.01; calls that were on their way when credits ran out",
            from_credits="5.00",
            due="2.00",
        ),
    ],
)


def in_euros(*days: str) -> Sequence[Bill]:
    """Return plain bills of Starter with German VAT."""
    lines = (line("0.00", "within the quota"), line("45.00", "Starter, the period that begins"))
    return [bill(day, "period", *lines, tax="8.55", total="53.55") for day in days]


PIA = Story(
    name="Pia",
    about="pays in euros with VAT, from the 31st, by the clock of Berlin",
    account={"currency": "EUR", "time_zone": "Europe/Berlin"},
    steps=[
        asks("01-02", "/tax-rates", "VAT of 19 % is set for Germany", name="VAT", percent="19", country="DE"),
        asks(
            "01-02T01",
            "/accounts/{account}/billing-profile",
            "says where she is",
            method="PUT",
            legal_name="Pia Wetter",
            country="DE",
        ),
        subscribes(
            "01-30T23", "starter", "subscribes to Starter, at midnight of the 31st in Berlin", anchor_day=31
        ),
    ],
    usage=[
        use("05-30T21", 60_000, words="60,000 requests in the last hour before midnight of 31 May in Berlin"),
        use("05-30T22", 40_000, words="40,000 requests in the first hour after it"),
        use("10-30T21", 55_000, words="55,000 requests in the last hour before midnight of 31 October"),
    ],
    bills=[
        bill("01-30", "start", line("45.00", "Starter, from 31 January"), tax="8.55", total="53.55"),
        # midnight of 29 February (23:00 UTC, and an hour of grace), 31 March (summer time: 22:00 UTC), 30 April
        *in_euros("02-29", "03-30", "04-29"),
        bill(
            "05-30",
            "period",
            line("14.00", "60,000 - 50,000 = 10,000 requests * 0.0014; the 40,000 are the next period's"),
            line("45.00", "Starter, from 31 May"),
            tax="11.21",  # VAT: 19 % of 59.00
            total="70.21",
        ),
        *in_euros("06-29", "07-30", "08-30", "09-29"),
        bill(
            "10-30",
            "period",
            line("7.00", "55,000 - 50,000 = 5,000 requests * 0.0014"),
            line("45.00", "Starter, from 31 October: the clock is put back three hours later"),
            tax="9.88",  # 19 % of 52.00
            total="61.88",
        ),
        *in_euros("11-30", "12-31"),
    ],
)

STORIES = (LOU, MAX, NIA, OTO, PIA)
