"""Every store against its neighbour: nothing is said of stores that agree, and each planted fault is named."""

from datetime import timedelta

import pytest
from sqlalchemy import select, text

from control_plane.reconciliation import queries
from control_plane.reconciliation.model import Comparison, Difference, Link, LinkState, Severity, not_checked
from control_plane.reconciliation.operations import start_reconciliation
from control_plane.reconciliation.tables import FoundDifference, Reconciliation
from control_plane.reconciliation.worker import OWN, ReconciliationConfig, plan_round, work_once
from control_plane.subscriptions.tables import Subscription
from control_plane.usage.completeness.tables import CountedUsage, HourCheck
from control_plane.usage.tables import TouchedHour, UsageHourly
from tests.control_plane.billing.invoices.billing_kit import DAY, FEB_1, HOUR, JAN_1, Billing

NOW = FEB_1 + 3 * HOUR
USED_AT = JAN_1 + 3 * DAY


@pytest.fixture
def billing(sessions) -> Billing:
    return Billing(sessions)


@pytest.fixture
async def customer(billing) -> Subscription:
    """A month with usage over the allowance, billed: all stores agree."""
    await billing.plan()
    customer = await billing.customer()
    await billing.close(JAN_1)
    await billing.use(customer, 62_345, at=USED_AT)
    await billing.close(FEB_1 + HOUR)
    assert len(await billing.invoices(customer)) == 2
    return customer


async def reconcile(sessions, *, now=NOW, comparisons=OWN, **options) -> dict:
    async with sessions() as session, session.begin():
        wanted = {"account_id": None, "start": None, "end": None, "with_stripe": False} | options
        row = await start_reconciliation(session, **wanted, actor="token:test", now=now)
    assert await work_once(sessions, comparisons=comparisons, clock=lambda: now)
    async with sessions() as session:
        row = await queries.reconciliation(session, row.id)
        found = (await queries.differences(session, row.id, cursor=None, limit=200)).items
    return {
        "state": row.state,
        "links": {link["link"]: link for link in row.links},
        "found": [(one.link, one.severity, one.cause, one.expected, one.found) for one in found],
    }


async def change(sessions, *statements) -> None:
    async with sessions() as session, session.begin():
        for statement in statements:
            if isinstance(statement, str):
                await session.execute(text(statement))
            else:
                session.add(statement)


class TestStoresThatAgree:
    async def test_are_said_to_be_equal(self, sessions, customer):
        out = await reconcile(sessions)
        assert out["found"] == []
        assert out["state"] == "equal"
        assert out["links"]["rollups_ledger"]["checked"] == 1
        assert out["links"]["ledger_invoices"]["checked"] == 1
        assert out["links"]["ledger_reports"]["state"] == "not_checked"

    async def test_also_when_late_usage_was_billed_with_the_next_invoice(self, sessions, billing, customer):
        await billing.use(customer, 1_000, at=USED_AT, known_at=FEB_1 + 5 * DAY)
        open_still = await reconcile(sessions, now=FEB_1 + 5 * DAY)
        assert open_still["found"] == [("ledger_invoices", "waiting", "late_usage", 2_002, 1_852)]
        await billing.seal(FEB_1 + 5 * DAY)
        late = await reconcile(sessions, now=FEB_1 + 5 * DAY)
        assert late["found"] == [("ledger_invoices", "waiting", "late_usage", 2_002, 1_852)]
        # billing should have seen it by then
        missed = await reconcile(sessions, now=FEB_1 + 6 * DAY)
        assert missed["found"] == [("ledger_invoices", "wrong", "billed_differs", 2_002, 1_852)]
        await billing.close(FEB_1 + 5 * DAY)
        waits = await reconcile(sessions, now=FEB_1 + 5 * DAY)
        assert waits["found"] == [("ledger_invoices", "waiting", "on_next_invoice", 2_002, 1_852)]
        assert waits["state"] == "waiting"
        await billing.close(FEB_1 + 28 * DAY + HOUR)
        assert (await reconcile(sessions, now=FEB_1 + 29 * DAY, start=JAN_1))["state"] == "equal"


class TestPlantedFaults:
    async def test_rows_of_a_sealed_hour_changed_behind_the_ledger(self, sessions, customer):
        await change(sessions, "UPDATE usage_hourly SET billable_units = billable_units - 7")
        out = await reconcile(sessions)
        assert ("rollups_ledger", "wrong", "ledger_differs", 62_338, 62_345) in out["found"]
        assert out["state"] == "differs"
        assert out["links"]["rollups_ledger"]["wrong"] == 1

    async def test_usage_that_is_being_sealed_anew_is_only_waited_for(self, sessions, customer):
        await change(
            sessions,
            "UPDATE usage_hourly SET billable_units = billable_units - 1",
            TouchedHour(account_id=customer.account_id, hour=USED_AT, generation=1, touched_at=NOW),
        )
        out = await reconcile(sessions)
        assert ("rollups_ledger", "waiting", "hour_touched", 62_344, 62_345) in out["found"]

    async def test_an_invoice_that_charges_too_little(self, sessions, customer):
        await change(
            sessions,
            "SET LOCAL session_replication_role = replica",
            "UPDATE invoice_lines SET amount_minor = amount_minor - 2 WHERE kind = 'usage'",
        )
        out = await reconcile(sessions)
        assert out["found"] == [("ledger_invoices", "wrong", "billed_differs", 1_852, 1_850)]

    async def test_calls_that_nobody_logged_name_the_node(self, sessions, customer):
        missing = [{"first": 10, "last": 11, "after_ms": None, "before_ms": None, "nodes": ["node-7/q7Zk2mXb"]}]
        await change(sessions, a_counter(customer, state="missing", missing_calls=2, missing=missing))
        out = await reconcile(sessions)
        assert out["found"] == [("gateway_events", "wrong", "never_logged", 100, 98)]
        async with sessions() as session:
            (row,) = await session.scalars(select(FoundDifference))
        assert "node-7/q7Zk2mXb" in row.detail
        assert row.subscription_id == customer.id

    async def test_a_rollup_that_differs_and_a_counter_that_is_not_the_bill(self, sessions, customer):
        check = HourCheck(
            account_id=customer.account_id,
            hour=USED_AT,
            revision=1,
            checked_at=NOW,
            differs_since=NOW,
            differences=[{"calls": 1}],
            settled="differs",
        )
        await change(sessions, check)
        out = await reconcile(sessions)
        assert [one[:3] for one in out["found"]] == [
            ("events_rollups", "wrong", "rollup_differs"),
            ("events_rollups", "wrong", "counter_differs"),
        ]

    async def test_wrong_ones_come_before_those_on_their_way(self, sessions, customer):
        await change(
            sessions,
            a_counter(customer, state="waiting"),
            "UPDATE usage_hourly SET billable_units = billable_units - 7",
        )
        out = await reconcile(sessions)
        assert [one[1] for one in out["found"]] == ["wrong", "wrong", "waiting"]


class TestScope:
    async def test_one_account_alone(self, sessions, billing, customer):
        other = await billing.customer()
        await change(sessions, "UPDATE usage_hourly SET billable_units = billable_units - 7")
        assert (await reconcile(sessions, account_id=other.account_id))["found"] == []
        assert len((await reconcile(sessions, account_id=customer.account_id))["found"]) == 2

    async def test_hours_outside_of_the_span_are_left_alone(self, sessions, customer):
        await change(sessions, "UPDATE usage_hourly SET billable_units = billable_units - 7")
        out = await reconcile(sessions, start=USED_AT + HOUR, end=USED_AT + DAY)
        assert out["links"]["rollups_ledger"]["checked"] == 0

    async def test_hours_whose_rows_were_dropped_are_not_taken_for_empty(self, sessions, customer):
        await change(
            sessions,
            "DELETE FROM usage_hourly",
            f"INSERT INTO usage_days (account_id, day, rolled_up_at, hours_dropped_at)"
            f" VALUES ('{customer.account_id}', '{USED_AT.isoformat()}', now(), now())",
        )
        out = await reconcile(sessions)
        assert out["links"]["rollups_ledger"]["checked"] == 0


class TestWorker:
    async def test_gives_up_what_fails_three_times_and_goes_on(self, sessions, customer):
        async def fails(_session, _span) -> Comparison:
            raise RuntimeError("the store is away")

        async with sessions() as session, session.begin():
            row = await start_reconciliation(
                session, account_id=None, start=None, end=None, with_stripe=False, actor="token:test", now=NOW
            )
        assert [await work_once(sessions, comparisons=(fails,)) for _ in range(4)] == [False, False, True, False]
        async with sessions() as session:
            failed = await queries.reconciliation(session, row.id)
        assert (failed.status, failed.state) == ("failed", "")
        assert "RuntimeError" in failed.error
        assert "away" not in failed.error  # what a store says may hold secrets
        assert (await reconcile(sessions))["state"] == "equal"

    async def test_compares_all_accounts_once_a_day_and_forgets_old_ones(self, sessions, customer):
        config = ReconciliationConfig()
        for hours in (0, 1, 23, 24, 25):
            await plan_round(sessions, config=config, now=NOW + hours * HOUR)
        async with sessions() as session:
            found = (await session.scalars(select(Reconciliation).order_by(Reconciliation.created_at))).all()
        assert [one.created_at - NOW for one in found] == [timedelta(), DAY]
        assert all(one.with_stripe and one.account_id is None for one in found)
        await plan_round(sessions, config=config, now=NOW + 100 * DAY)
        async with sessions() as session:
            (left,) = (await session.scalars(select(Reconciliation))).all()
        assert left.created_at == NOW + 100 * DAY

    async def test_tries_again_within_hours_what_has_failed(self, sessions, customer):
        config = ReconciliationConfig()
        await plan_round(sessions, config=config, now=NOW)
        await change(sessions, "UPDATE reconciliations SET status = 'failed', finished_at = created_at")
        for minutes in (30, 61, 90):
            await plan_round(sessions, config=config, now=NOW + timedelta(minutes=minutes))
        async with sessions() as session:
            found = (await session.scalars(select(Reconciliation).order_by(Reconciliation.created_at))).all()
        assert [one.created_at - NOW for one in found] == [timedelta(), timedelta(minutes=61)]

    async def test_gives_up_what_cannot_be_written_down(self, sessions, customer):
        async def too_much(_session, span) -> Comparison:
            found = Difference(
                link=Link.REPORTS_STRIPE,
                severity=Severity.WRONG,
                account_id=customer.account_id,
                start=span.start,
                end=span.end,
                unit="units",
                expected=2**70,
                found=0,
                cause="too_much",
                detail="",
            )
            return Comparison(link=Link.REPORTS_STRIPE, checked_what="units", differences=[found])

        async with sessions() as session, session.begin():
            row = await start_reconciliation(
                session, account_id=None, start=None, end=None, with_stripe=False, actor="token:test", now=NOW
            )
        assert [await work_once(sessions, comparisons=(too_much,)) for _ in range(3)] == [False, False, True]
        async with sessions() as session:
            failed = await queries.reconciliation(session, row.id)
        assert (failed.status, failed.state, failed.links) == ("failed", "", [])

    async def test_nothing_checked_is_not_equal(self, sessions, customer):
        async def nothing(_session, _span) -> Comparison:
            return not_checked(Link.REPORTS_STRIPE, "Stripe is off.")

        assert (await reconcile(sessions, comparisons=(nothing,)))["state"] == "not_checked"

    async def test_reads_one_moment_of_all_stores(self, sessions, customer):
        """What is written while it compares shows in none of the links, or in all."""

        async def writes_meanwhile(_session, _span) -> Comparison:
            await change(sessions, "UPDATE usage_hourly SET billable_units = billable_units - 7")
            return not_checked(Link.GATEWAY_EVENTS, "")

        async def sees(session, _span) -> Comparison:
            units = await session.scalar(select(UsageHourly.billable_units))
            return Comparison(link=Link.ROLLUPS_LEDGER, checked_what="units", expected=units)

        out = await reconcile(sessions, comparisons=(sees, writes_meanwhile, sees))
        assert out["links"]["rollups_ledger"]["expected"] == 62_345


class TestComparison:
    def test_a_difference_counts_even_where_the_rest_could_not_be_checked(self):
        comparison = not_checked(Link.REPORTS_STRIPE, "Stripe is away.")
        assert comparison.state is LinkState.NOT_CHECKED
        assert comparison.count(Severity.WRONG) == 0


def a_counter(customer, **values) -> CountedUsage:
    return CountedUsage(
        **{
            "hour": USED_AT,
            "subscription_id": customer.id,
            "mode": "live",
            "account_id": customer.account_id,
            "product": "weather",
            "period_start": JAN_1,
            "admitted": 100,
            "not_counted": 0,
            "numbers": [{"first": 1, "last": 100}],
            "counted_at": USED_AT + HOUR,
            "missing": [],
            "stored": 100,
            "rolled_up": 100,
        }
        | values
    )
