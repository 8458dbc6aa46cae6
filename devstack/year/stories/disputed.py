"""Bills that do not go as planned: unpaid, late, disputed, void."""

from devstack.year.asks import asks, subscribes
from devstack.year.model import Story, at, bill, line, plain, use

IVY = Story(
    name="Ivy",
    about="does not pay in May",
    steps=[subscribes("01-01", "starter", "subscribes to Starter")],
    bills=[
        bill("01-01", "start", line("49.00", "Starter, January"), total="49.00"),
        *plain("Starter", "49.00", "02-01", "03-01", "04-01", "05-01", "06-01", "07-01", "08-01", "09-01"),
        *plain("Starter", "49.00", "10-01", "11-01", "12-01", "+01-01"),
    ],
    unpaid=[at("05-06"), at("05-20")],
    statuses=((at("05-22"), "past_due"), (at("06-06"), "active")),
)

JO = Story(
    name="Jo",
    about="has a gateway whose usage comes late, and once too late",
    steps=[subscribes("01-01", "starter", "subscribes to Starter")],
    usage=[
        use("03-10T14", 60_000),
        use("03-24T06", 5_000, arrives=at("04-09T12"), words="5,000 requests of 24 March arrive"),
        use("04-10T14", 3_000, arrives=at("08-12T09"), lost=True, words="3,000 requests of 10 April arrive"),
    ],
    bills=[
        bill("01-01", "start", line("49.00", "Starter, January"), total="49.00"),
        *plain("Starter", "49.00", "02-01", "03-01"),
        bill(
            "04-01",
            "period",
            line("15.00", "60,000 - 50,000 = 10,000 requests * 0.0015"),
            line("49.00", "Starter, April"),
            total="64.00",
        ),
        bill(
            "05-01",
            "period",
            line("7.50", "March anew: 65,000 - 50,000 = 15,000 * 0.0015 = 22.50; 22.50 - 15.00 billed before"),
            line("0.00", "April, within the quota"),
            line("49.00", "Starter, May"),
            total="56.50",
        ),
        *plain("Starter", "49.00", "06-01", "07-01", "08-01", "09-01", "10-01", "11-01", "12-01", "+01-01"),
    ],
)

KIM = Story(
    name="Kim",
    about="disputes an hour of calls that a loop made, and is right",
    steps=[
        subscribes("01-01", "starter", "subscribes to Starter"),
        asks(
            "08-08",
            "/disputes",
            "disputes the calls of 17 July, 20:00 to 21:00",
            save={"dispute": "id"},
            account_id="{account}",
            subject="A loop of ours",
            requests={"start": "2032-07-17T20:00:00Z", "end": "2032-07-17T21:00:00Z"},
        ),
        asks("08-09", "/disputes/{dispute}/review", "the case is looked into"),
        asks(
            "08-10",
            "/disputes/{dispute}/decide",
            "the calls are taken out of the count",
            decision="accepted",
            explanation="Our status page told clients to retry.",
            void_requests=True,
        ),
    ],
    usage=[use("07-10T14", 40_000), use("07-17T20", 30_000, voided=True)],
    bills=[
        bill("01-01", "start", line("49.00", "Starter, January"), total="49.00"),
        *plain("Starter", "49.00", "02-01", "03-01", "04-01", "05-01", "06-01", "07-01"),
        bill(
            "08-01",
            "period",
            line("30.00", "40,000 + 30,000 - 50,000 = 20,000 requests * 0.0015"),
            line("49.00", "Starter, August"),
            total="79.00",
        ),
        bill(
            "09-01",
            "period",
            line("-30.00", "July anew: 40,000 are within the quota; 0.00 - 30.00 billed before"),
            line("0.00", "August, within the quota"),
            line("49.00", "Starter, September"),
            total="19.00",
        ),
        *plain("Starter", "49.00", "10-01", "11-01", "12-01", "+01-01"),
    ],
)

SOL = Story(
    name="Sol",
    about="has an invoice made void, and is billed anew",
    steps=[
        subscribes("01-01", "starter", "subscribes to Starter"),
        asks(
            "02-03",
            "/accounts/{account}/invoices?status=open",
            "the invoice of 1 February names another company",
            method="GET",
            save={"invoice": "items.0.id"},
        ),
        asks("02-03T01", "/invoices/{invoice}/void", "it is made void", reason="The buyer is another company."),
    ],
    usage=[use("01-24T06", 60_000)],
    bills=[
        bill("01-01", "start", line("49.00", "Starter, January"), total="49.00"),
        bill(
            "02-01",
            "period",
            line("15.00", "60,000 - 50,000 = 10,000 requests * 0.0015"),
            line("49.00", "Starter, February"),
            total="64.00",
            end="void",
        ),
        bill("02-03", "change", line("49.00", "Starter, February: billed anew at once"), total="49.00"),
        bill(
            "03-01",
            "period",
            line("15.00", "January's 10,000 requests: billed anew with the next invoice"),
            line("0.00", "February, within the quota"),
            line("49.00", "Starter, March"),
            total="64.00",
        ),
        *plain("Starter", "49.00", "04-01", "05-01", "06-01", "07-01", "08-01", "09-01"),
        *plain("Starter", "49.00", "10-01", "11-01", "12-01", "+01-01"),
    ],
)

STORIES = (IVY, JO, KIM, SOL)
