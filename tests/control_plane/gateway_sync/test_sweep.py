import asyncio
import itertools
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import delete

from control_plane.foundation.clock import to_ms
from control_plane.foundation.outbox import OutboxRow
from control_plane.gateway_sync import sweep as sweep_module
from control_plane.gateway_sync.projection_state import begin_sweep, finish_sweep, read_state
from control_plane.gateway_sync.sweep import SweepInterruptedError, SweepProgress, rebuild, sweep, sweep_lock
from gateway_contract.redis_names import KEY_BUCKETS, account_record, projection_marker

PUBLIC_URL = "https://api.example.com"

MARKER = projection_marker(KEY_BUCKETS[-1])


@pytest.fixture
async def customers(shop, now):
    await shop.add_catalog(now)
    return [await shop.add_customer(now, keys=3, name=f"Customer {number}") for number in range(5)]


@pytest.fixture
def small_pages(monkeypatch):
    monkeypatch.setattr(sweep_module, "PAGE", 2)


async def run_rebuild(shop, gateway, now, **options):
    return await rebuild(shop.engine, gateway.client, public_url=PUBLIC_URL, now=now, **options)


async def run_sweep(shop, gateway, now, **options):
    return await sweep(
        shop.sessions, gateway.client, public_url=PUBLIC_URL, now=now, **{"restore": False, **options}
    )


class TestRebuild:
    async def test_writes_every_record_and_the_marker(self, shop, gateway, now, customers, small_pages):
        report = await run_rebuild(shop, gateway, now)
        assert (report.accounts, report.keys, report.written) == (5, 15, 20)
        for customer in customers:
            assert "weather" in (await gateway.account(customer.account_id)).products
            for key_hash in customer.hashes:
                assert (await gateway.key(key_hash)).account_id == customer.account_id
            assert set(await gateway.versions(customer.account_id)) == {"account", *customer.keys}
        state = await read_state(gateway.client)
        assert state.complete
        assert (state.marker.keys, state.marker.accounts) == (15, 5)

    async def test_again_finds_nothing_to_write(self, shop, gateway, now, customers):
        await run_rebuild(shop, gateway, now)
        assert (await run_rebuild(shop, gateway, now)).written == 0

    async def test_reports_progress(self, shop, gateway, now, customers, small_pages):
        seen: list[SweepProgress] = []
        await run_rebuild(shop, gateway, now, progress=seen.append)
        assert [(p.step, p.done, p.total) for p in seen if p.done == p.total] == [
            ("counters", 5, 5),
            ("accounts", 5, 5),
            ("keys", 15, 15),
        ]

    async def test_a_long_one_writes_records_as_of_the_moment_at_which_it_comes_to_them(
        self, shop, gateway, now, customers, monkeypatch
    ):
        ticks = itertools.count(step=timedelta(days=40).total_seconds())
        monkeypatch.setattr(sweep_module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
        await run_sweep(shop, gateway, now)
        for customer in customers:
            grant = (await gateway.account(customer.account_id)).products["weather"]
            assert grant.periods[0].start_ms > to_ms(now)

    async def test_heals_what_no_outbox_row_tells_of(self, shop, gateway, now, customers):
        await run_rebuild(shop, gateway, now)
        async with shop.sessions() as session, session.begin():
            await session.execute(delete(OutboxRow))
        await gateway.client.delete(account_record(customers[0].account_id))
        assert (await run_sweep(shop, gateway, now)).written == 1
        assert await gateway.account(customers[0].account_id) is not None

    async def test_waits_for_a_sweep_that_runs(self, shop, gateway, now, customers):
        async with sweep_lock(shop.engine, wait=False) as mine:
            assert mine
            async with sweep_lock(shop.engine, wait=False) as second:
                assert not second
            waiting = asyncio.create_task(run_rebuild(shop, gateway, now))
            await asyncio.sleep(0.2)
            assert not waiting.done()
        assert (await waiting).keys == 15


class TestInterruption:
    async def test_flushall_in_mid_sweep_leaves_no_marker(self, shop, gateway, now, customers):
        flushes = []

        def flush(progress):
            if progress.step == "accounts":
                flushes.append(asyncio.ensure_future(gateway.client.flushall()))

        with pytest.raises(SweepInterruptedError):
            await run_rebuild(shop, gateway, now, progress=flush)
        await asyncio.gather(*flushes)
        assert await gateway.client.exists(MARKER) == 0

    async def test_of_two_sweeps_only_the_later_finishes(self, shop, gateway, now, customers):
        await run_rebuild(shop, gateway, now)
        marker = (await read_state(gateway.client)).marker
        first = await begin_sweep(gateway.client, forget_marker=True)
        second = await begin_sweep(gateway.client, forget_marker=True)
        assert not await finish_sweep(gateway.client, first, marker)
        assert await finish_sweep(gateway.client, second, marker)

    async def test_a_marker_of_another_server_does_not_count(self, shop, gateway, now, customers):
        await run_rebuild(shop, gateway, now)
        state = await read_state(gateway.client)
        token = await begin_sweep(gateway.client, forget_marker=False)
        assert not await finish_sweep(gateway.client, token, replace(state.marker, run_ids=("0" * 40,)))
        assert not replace(state, run_ids=("0" * 40,)).complete

    async def test_a_plain_sweep_keeps_the_marker_while_it_runs(self, shop, gateway, now, customers):
        await run_rebuild(shop, gateway, now)
        lookups = []

        def look(_progress):
            lookups.append(asyncio.ensure_future(gateway.client.exists(MARKER)))

        await run_sweep(shop, gateway, now, progress=look)
        assert all(await asyncio.gather(*lookups))
