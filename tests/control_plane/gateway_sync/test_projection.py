import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text, update

from control_plane.accounts.operations import rename_account, suspend_account
from control_plane.accounts.tables import Account
from control_plane.foundation.clock import to_ms
from control_plane.foundation.outbox import OutboxRow
from control_plane.gateway_sync.key_snapshots import keys_by_id
from control_plane.gateway_sync.projection import project_again, project_changes
from control_plane.gateway_sync.record_writer import RecordWriter
from control_plane.gateway_sync.snapshots import accounts_by_id, consistent_reads
from control_plane.keys.operations import issue_key, revoke_key, update_key
from control_plane.subscriptions.advance import advance
from control_plane.subscriptions.operations import cancel, change_plan
from control_plane.subscriptions.own_terms import override_limits
from control_plane.subscriptions.tables import Subscription
from gateway_contract.invalidations import account_invalidation, key_invalidation
from gateway_contract.modes import Mode
from gateway_contract.records import AccountStatus, KeyRecord, KeyStatus, Quota, Window
from gateway_contract.redis_names import INVALIDATIONS_CHANNEL, account_versions, key_record

ACTOR = "test"
PUBLIC_URL = "https://api.example.com"


@pytest.fixture
async def ada(shop, project, now):
    await shop.add_catalog(now)
    ada = await shop.add_customer(now)
    await project(now)
    return ada


async def change(shop, operation, **arguments):
    async with shop.sessions() as session, session.begin():
        return await operation(session, actor=ACTOR, **arguments)


class TestProjectChanges:
    async def test_writes_key_and_account_with_their_versions(self, shop, gateway, ada):
        key, account = await gateway.key(ada.hashes[0]), await gateway.account(ada.account_id)
        assert (key.id, key.account_id, key.status) == (ada.keys[0], ada.account_id, KeyStatus.ACTIVE)
        grant = account.products["weather"]
        assert (grant.subscription_id, grant.plan, grant.quota) == (
            ada.subscription_id,
            "free",
            Quota(1000, hard=True),
        )
        assert grant.upgrade.url == f"{PUBLIC_URL}/upgrade?product=weather&plan=starter"
        assert grant.route_units == {"history": 5}
        assert await gateway.versions(ada.account_id) == {"account": account.version, ada.keys[0]: key.version}

    async def test_every_restriction_of_a_key_reaches_the_gateway(self, shop, gateway, project, now, ada):
        expires_at = now + timedelta(days=1)
        issued = await change(
            shop,
            issue_key,
            account_id=ada.account_id,
            name="CI größer",
            mode="test",
            scopes=["read_only"],
            windows=[Window(limit=1, window_ms=1000)],
            quota_units=10,
            ip_ranges=["10.0.0.0/8"],
            expires_at=expires_at,
            now=now,
        )
        await project(now)
        assert await gateway.key(issued.key.key_hash) == KeyRecord(
            id=issued.key.id,
            account_id=ada.account_id,
            mode=Mode.TEST,
            status=KeyStatus.ACTIVE,
            version=1,
            scopes=("read_only",),
            windows=(Window(limit=1, window_ms=1000),),
            quota_units=10,
            ip_ranges=("10.0.0.0/8",),
            expires_at_ms=to_ms(expires_at),
            name="CI größer",
        )

    async def test_does_each_change_once(self, project, now, ada):
        assert await project(now) == 0

    async def test_a_revoked_key_leaves_a_tombstone_and_a_higher_version(self, shop, gateway, project, now, ada):
        before = await gateway.key(ada.hashes[0])
        await change(shop, revoke_key, key_id=ada.keys[0], now=now)
        await project(now)
        after = await gateway.key(ada.hashes[0])
        assert after.status is KeyStatus.REVOKED
        assert after.version > before.version
        assert (await gateway.versions(ada.account_id))[ada.keys[0]] == after.version

    async def test_a_suspended_account_keeps_its_record(self, shop, gateway, project, now, ada):
        await change(shop, suspend_account, account_id=ada.account_id, now=now)
        await project(now)
        assert (await gateway.account(ada.account_id)).status is AccountStatus.SUSPENDED

    async def test_overrides_reach_the_gateway(self, shop, gateway, project, now, ada):
        wider = (Window(limit=99, window_ms=1000),)
        await change(
            shop, override_limits, subscription_id=ada.subscription_id, windows=wider, quota_units=5, now=now
        )
        await project(now)
        grant = (await gateway.account(ada.account_id)).products["weather"]
        assert (grant.windows, grant.quota) == (wider, Quota(5, hard=True))

    async def test_a_cancelled_subscription_grants_nothing(self, shop, gateway, project, now, ada):
        await change(shop, cancel, subscription_id=ada.subscription_id, at="now", now=now)
        await project(now)
        assert (await gateway.account(ada.account_id)).products == {}

    async def test_a_paused_subscription_says_so_and_has_no_period(self, shop, gateway, project, now, ada):
        async with shop.sessions() as session, session.begin():
            await session.execute(
                update(Subscription).where(Subscription.id == ada.subscription_id).values(status="paused")
            )
        await change(shop, rename_account, account_id=ada.account_id, name="Ada L", now=now)
        await project(now)
        grant = (await gateway.account(ada.account_id)).products["weather"]
        assert grant.paused
        assert [period.end_ms - period.start_ms for period in grant.periods] == [0]

    async def test_a_projector_whose_clock_is_behind_sees_what_has_begun(self, shop, gateway, project, now, ada):
        bob = await shop.add_customer(now, name="Bob")
        await project(now - timedelta(seconds=2))
        assert (await gateway.account(bob.account_id)).products["weather"].plan == "free"
        await change(shop, change_plan, subscription_id=bob.subscription_id, plan_code="starter", now=now)
        await project(now - timedelta(seconds=1))
        assert (await gateway.account(bob.account_id)).products["weather"].plan == "starter"

    async def test_a_plan_change_shows_when_its_time_has_come(self, shop, gateway, project, now, ada):
        later = now + timedelta(hours=1)
        await change(
            shop,
            change_plan,
            subscription_id=ada.subscription_id,
            plan_code="starter",
            effective_at=later,
            now=now,
        )
        await project(now)
        assert (await gateway.account(ada.account_id)).products["weather"].plan == "free"
        async with shop.sessions() as session, session.begin():
            await advance(session, now=later)
        await project(later)
        assert (await gateway.account(ada.account_id)).products["weather"].plan == "starter"

    async def test_tells_caches_what_changed(self, gateway, shop, project, now, ada):
        async with gateway.client.pubsub() as listener:
            await listener.subscribe(INVALIDATIONS_CHANNEL)
            await change(shop, revoke_key, key_id=ada.keys[0], now=now)
            await change(shop, suspend_account, account_id=ada.account_id, now=now)
            await project(now)
            heard = set()
            while len(heard) < 2:
                message = await asyncio.wait_for(listener.get_message(timeout=10), 10)
                if message and message["type"] == "message":
                    heard.add(message["data"])
        assert heard == {key_invalidation(ada.hashes[0]), account_invalidation(ada.account_id)}

    async def test_a_row_that_names_nothing_is_worked_off(self, shop, project, now):
        async with shop.sessions() as session, session.begin():
            session.add(
                OutboxRow(topic="key.changed", entity_id="key_gone", payload=None, created_at=now, done_at=None)
            )
        assert await project(now) == 1
        assert await project(now) == 0

    async def test_a_spoiled_row_does_not_hold_up_the_others(self, shop, gateway, project, now, ada):
        async with shop.sessions() as session, session.begin():
            await session.execute(
                text("""UPDATE api_keys SET windows = '[{"limit": "many"}]' WHERE id = :id"""), {"id": ada.keys[0]}
            )
        await change(shop, revoke_key, key_id=ada.keys[0], now=now)
        bob = await shop.add_customer(now, name="Bob")
        await project(now)
        assert await gateway.key(bob.hashes[0]) is not None


class TestOutOfOrder:
    async def test_an_older_snapshot_never_overwrites_a_newer_one(self, shop, gateway, project, now, ada):
        """A projector that fell asleep between reading and writing wakes up after another has projected."""
        async with consistent_reads(shop.sessions) as reads:
            old_keys = await keys_by_id(reads, ada.keys)
            old_accounts = await accounts_by_id(reads, [ada.account_id], now=now)
        await change(shop, revoke_key, key_id=ada.keys[0], now=now)
        await change(shop, suspend_account, account_id=ada.account_id, now=now)
        await project(now)
        versions = await gateway.versions(ada.account_id)

        sleeper = RecordWriter(gateway.client)
        assert await sleeper.write_keys(old_keys) == 0
        assert await sleeper.write_accounts(old_accounts, now=now, public_url=PUBLIC_URL) == 0
        assert (await gateway.key(ada.hashes[0])).status is KeyStatus.REVOKED
        assert (await gateway.account(ada.account_id)).status is AccountStatus.SUSPENDED
        assert await gateway.versions(ada.account_id) == versions

    async def test_racing_projectors_leave_the_newest(self, shop, gateway, now, ada):
        async def keep_changing():
            for number in range(30):
                await change(shop, update_key, key_id=ada.keys[0], name=f"name {number}", now=now)
                await change(shop, rename_account, account_id=ada.account_id, name=f"Ada {number}", now=now)

        async def keep_projecting(changing):
            while not changing.done() or await _waiting(shop.sessions):
                await project_changes(
                    shop.sessions, RecordWriter(gateway.client), public_url=PUBLIC_URL, now=now, limit=3
                )

        changing = asyncio.create_task(keep_changing())
        await asyncio.gather(changing, *(keep_projecting(changing) for _ in range(3)))
        assert (await gateway.key(ada.hashes[0])).name == "name 29"
        assert (await gateway.account(ada.account_id)).name == "Ada 29"

    async def test_a_record_of_the_same_version_moves_on_with_time(self, shop, gateway, now, ada):
        later = now + timedelta(days=62)
        async with consistent_reads(shop.sessions) as reads:
            accounts = await accounts_by_id(reads, [ada.account_id], now=later)
        before = await gateway.account(ada.account_id)
        assert await RecordWriter(gateway.client).write_accounts(accounts, now=later, public_url=PUBLIC_URL) == 1
        after = await gateway.account(ada.account_id)
        assert after.version == before.version
        assert after.products["weather"].periods[0].start_ms > before.products["weather"].periods[0].start_ms

    async def test_an_unreadable_record_is_replaced(self, shop, gateway, project, now, ada):
        await gateway.client.set(key_record(ada.hashes[0]), "{broken")
        await change(shop, update_key, key_id=ada.keys[0], name="new", now=now)
        await project(now)
        assert (await gateway.key(ada.hashes[0])).name == "new"


class TestProjectAgain:
    async def test_writes_what_was_done_lately_over_what_is_older(self, shop, gateway, project, now, ada):
        old = await gateway.client.get(key_record(ada.hashes[0]))
        async with shop.sessions() as session, session.begin():
            await revoke_key(session, key_id=ada.keys[0], actor="test", now=now)
        await project(now)
        await gateway.client.set(key_record(ada.hashes[0]), old)
        await gateway.client.hset(account_versions(ada.account_id), ada.keys[0], 1)
        assert await again(shop, gateway, since=now + timedelta(seconds=1), now=now) == 0
        assert await again(shop, gateway, since=now, now=now) > 0
        assert (await gateway.key(ada.hashes[0])).status is KeyStatus.REVOKED
        assert (await gateway.versions(ada.account_id))[ada.keys[0]] == 2


async def again(shop, gateway, *, since, now):
    writer = RecordWriter(gateway.client)
    return await project_again(shop.sessions, writer, public_url=PUBLIC_URL, since=since, now=now, limit=1)


class TestCrash:
    async def test_after_redis_and_before_done_is_repeated_without_harm(self, shop, gateway, project, now, ada):
        await change(shop, revoke_key, key_id=ada.keys[0], now=now)
        with pytest.raises(ConnectionResetError):
            await project_changes(shop.sessions, DiesAfterWriting(gateway.client), public_url=PUBLIC_URL, now=now)
        assert (await gateway.key(ada.hashes[0])).status is KeyStatus.REVOKED
        assert await _waiting(shop.sessions) == 1
        written = await gateway.key(ada.hashes[0])
        assert await project(now) == 1
        assert await gateway.key(ada.hashes[0]) == written

    async def test_before_redis_leaves_the_change_waiting(self, shop, gateway, project, now, ada):
        await change(shop, revoke_key, key_id=ada.keys[0], now=now)
        with pytest.raises(ConnectionResetError):
            await project_changes(shop.sessions, DiesBeforeWriting(gateway.client), public_url=PUBLIC_URL, now=now)
        assert (await gateway.key(ada.hashes[0])).status is KeyStatus.ACTIVE
        await project(now)
        assert (await gateway.key(ada.hashes[0])).status is KeyStatus.REVOKED


class TestConsistentReads:
    async def test_version_and_facts_are_of_one_moment(self, shop, now, ada):
        async with consistent_reads(shop.sessions) as reads:
            await accounts_by_id(reads, ["acc_nobody"], now=now)  # the snapshot is taken by the first read
            await change(shop, cancel, subscription_id=ada.subscription_id, at="now", now=now)
            (account,) = await accounts_by_id(reads, [ada.account_id], now=now)
        assert [subscription.id for subscription in account.subscriptions] == [ada.subscription_id]
        async with shop.sessions() as session:
            current = await session.get_one(Account, ada.account_id)
        assert account.version == current.gateway_version - 1


class DiesAfterWriting(RecordWriter):
    async def write_keys(self, keys, *, announce_new=True):
        await super().write_keys(keys, announce_new=announce_new)
        raise ConnectionResetError


class DiesBeforeWriting(RecordWriter):
    async def write_keys(self, keys, *, announce_new=True):
        raise ConnectionResetError


async def _waiting(sessions) -> int:
    async with sessions() as session:
        return await session.scalar(
            text(
                "SELECT count(*) FROM outbox WHERE done_at IS NULL AND topic IN ('key.changed', 'account.changed')"
            )
        )
