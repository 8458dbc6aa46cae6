"""Makes the subscriptions and the usage of `bench_closing.py`, inside PostgreSQL.

Three plans in turn: one with a fee and overage, one with graduated tiers, one paid by use with a minimum.
Every account has one subscription since the beginning of a month, and calls on every day of it in some hours, with
two statuses each. All hours are sealed, and days are rolled up, as they would be an hour after the month.
"""

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg

from control_plane.catalog.model import PlanFacts, PlanTerms, PriceTerms, ProductFacts
from control_plane.catalog.operations import create_api_product, create_plan
from control_plane.catalog.publishing import publish_version
from control_plane.foundation.db import create_engine, session_factory

JAN_1 = datetime(2026, 1, 1, tzinfo=UTC)
FEB_1 = datetime(2026, 2, 1, tzinfo=UTC)
ACTOR = "bench"
FLAT = PriceTerms(model="flat", meter=None, params={"amount": "49.00"})
OVERAGE = PriceTerms(model="overage", meter="requests", params={"included": 1_000, "unit_amount": "0.0015"})
GRADUATED = PriceTerms(
    model="graduated",
    meter="requests",
    params={
        "tiers": [
            {"up_to": 500, "unit_amount": "0.002"},
            {"up_to": 5_000, "unit_amount": "0.001"},
            {"up_to": None, "unit_amount": "0.0005"},
        ]
    },
)
PER_UNIT = PriceTerms(model="per_unit", meter="requests", params={"unit_amount": "0.0007"})
MINIMUM = PriceTerms(model="commitment", meter=None, params={"amount": "5.00", "counts": "usage"})
PLANS = {"starter": (FLAT, OVERAGE), "tiered": (FLAT, GRADUATED), "usage": (PER_UNIT, MINIMUM)}

_SUBSCRIPTIONS = """
INSERT INTO accounts (id, name, currency, created_at)
SELECT 'acc_' || lpad(number::text, 26, '0'), 'Customer ' || number, 'USD', %(start)s
FROM generate_series(1, %(count)s) AS number;
INSERT INTO subscriptions (id, account_id, api_product_id, status, anchor_at, interval, started_at, created_at)
SELECT 'sub_' || lpad(number::text, 26, '0'), 'acc_' || lpad(number::text, 26, '0'), %(product)s, 'active',
    %(start)s, 'month', %(start)s, %(start)s
FROM generate_series(1, %(count)s) AS number;
ALTER TABLE subscription_phases DISABLE TRIGGER USER;
INSERT INTO subscription_phases (id, subscription_id, plan_version_id, starts_at, applied_at)
SELECT 'ph_' || lpad(number::text, 26, '0'), 'sub_' || lpad(number::text, 26, '0'),
    (%(versions)s::text[])[1 + number %% 3], %(start)s, %(start)s
FROM generate_series(1, %(count)s) AS number;
ALTER TABLE subscription_phases ENABLE TRIGGER USER;
"""
_HOURS = """
ALTER TABLE usage_hourly DISABLE TRIGGER USER;
INSERT INTO usage_hourly (account_id, hour, phase_id, product, mode, key_id, endpoint, status, outcome, replayed,
    amendment_id, calls, units, billable_calls, billable_units, bytes_in, bytes_out, latency_ms_sum,
    gateway_ms_sum, upstream_ms_sum, dimensions, billable_dimensions, revision)
SELECT 'acc_' || lpad(number::text, 26, '0'),
    %(start)s + make_interval(days => day, hours => (number + hour * 5) %% 24),
    'ph_' || lpad(number::text, 26, '0'), 'weather', 'live', 'key_1', 'GET /v1/current', status, 'served', false,
    '', calls, calls, billed, billed, 300 * calls, 900 * calls, 10 * calls, 2 * calls, 8 * calls, '{}', '{}', 1
FROM generate_series(%(first)s, %(last)s) AS number, generate_series(0, 30) AS day,
    generate_series(0, %(hours)s - 1) AS hour, (VALUES (200), (500)) AS answered (status),
    LATERAL (SELECT CASE status WHEN 200 THEN 5 + (number + day) %% 40 ELSE 1 END AS calls) AS made,
    LATERAL (SELECT CASE status WHEN 200 THEN calls ELSE 0 END AS billed) AS counted;
ALTER TABLE usage_hourly ENABLE TRIGGER USER;
"""
_DAYS = """
INSERT INTO usage_daily (account_id, day, phase_id, product, mode, key_id, endpoint, status, outcome, replayed,
    amendment_id, calls, units, billable_calls, billable_units, bytes_in, bytes_out, latency_ms_sum,
    gateway_ms_sum, upstream_ms_sum, dimensions, billable_dimensions)
SELECT account_id, date_trunc('day', hour, 'UTC'), phase_id, product, mode, key_id, endpoint, status, outcome,
    replayed, amendment_id, sum(calls), sum(units), sum(billable_calls), sum(billable_units), sum(bytes_in),
    sum(bytes_out), sum(latency_ms_sum), sum(gateway_ms_sum), sum(upstream_ms_sum), '{}', '{}'
FROM usage_hourly GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11;
INSERT INTO usage_days (account_id, day, rolled_up_at)
SELECT DISTINCT account_id, day, day + make_interval(days => 1) FROM usage_daily;
"""
_SEALED = """
INSERT INTO usage_hours (account_id, hour, revision, aggregated_at, sealed_at)
SELECT account_id, hour, 1, hour + make_interval(hours => 2), hour + make_interval(hours => 2)
FROM (SELECT DISTINCT account_id, hour FROM usage_hourly) AS hours;
"""
ACCOUNTS_PER_PASS = 5_000


async def make_plans(database_url: str) -> tuple[str, list[str]]:
    """Publish the plans; returns the API product's id and the versions' ids."""
    engine = create_engine(database_url)
    now = JAN_1 - timedelta(days=1)
    async with session_factory(engine)() as session, session.begin():
        product = await create_api_product(
            session,
            product=ProductFacts(code="weather", name="Weather", service="weather", routes=("weather",)),
            actor=ACTOR,
            now=now,
        )
        versions = []
        for code, prices in PLANS.items():
            facts = PlanFacts(code=code, name=code.title(), api_product="weather", position=len(versions))
            await create_plan(session, plan=facts, actor=ACTOR, now=now)
            terms = PlanTerms(interval="month", currency="USD", prices=prices)
            versions.append((await publish_version(session, plan_code=code, terms=terms, actor=ACTOR, now=now)).id)
        found = product.id, versions
    await engine.dispose()
    return found


def make_data(database_url: str, *, subscriptions: int, hours_a_day: int) -> int:
    """Fill the database; returns how many rows of hourly usage there are."""
    product, versions = asyncio.run(make_plans(database_url))
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:
        cursor = psycopg.ClientCursor(connection)
        cursor.execute(
            _SUBSCRIPTIONS, {"count": subscriptions, "start": JAN_1, "product": product, "versions": versions}
        )
        for first in range(1, subscriptions + 1, ACCOUNTS_PER_PASS):
            last = min(subscriptions, first + ACCOUNTS_PER_PASS - 1)
            cursor.execute(_HOURS, {"start": JAN_1, "first": first, "last": last, "hours": hours_a_day})
        cursor.execute(_DAYS)
        cursor.execute(_SEALED)
        cursor.execute("VACUUM ANALYZE")
        return cursor.execute("SELECT count(*) FROM usage_hourly").fetchone()[0]
