"""Accounts: what changes them raises their version, is told to the projector, and is written down."""

import asyncio

import pytest
from sqlalchemy import select

from control_plane.accounts import queries
from control_plane.accounts.operations import (
    AccountDeletedError,
    bump_gateway_version,
    bump_gateway_versions,
    create_account,
    rename_account,
    resume_account,
    suspend_account,
)
from control_plane.accounts.tables import Account
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from tests.control_plane.builders import ACTOR, an_account, audit_of, outbox_of


class TestCreateAccount:
    async def test_makes_an_active_account_and_tells_the_projector(self, session, now):
        account = await an_account(session, now=now, name="  Ada Lovelace ")
        assert (account.name, account.status, account.gateway_version) == ("Ada Lovelace", "active", 1)
        assert await outbox_of(session, "account.changed") == [account.id]
        (row,) = await audit_of(session, account.id)
        assert (row.actor, row.before, row.after["name"]) == (ACTOR, None, "Ada Lovelace")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("name", " "),
            ("name", "x" * 201),
            ("name", "a\nb"),
            ("email", "nobody"),
            ("email", "a@b c"),
            ("currency", "usd"),
            ("currency", "XXX"),
            ("time_zone", "Mars/Olympus"),
        ],
    )
    async def test_refuses_by_field_and_leaves_nothing(self, session, now, field, value):
        arguments = {"name": "Ada", field: value}
        with pytest.raises(ValidationFailedError) as refused:
            await create_account(session, **arguments, actor=ACTOR, now=now)
        assert refused.value.field == field
        assert (await queries.account_page(session, limit=10)).items == ()


class TestChangeAccount:
    async def test_each_change_raises_the_version_once(self, session, now):
        account = await an_account(session, now=now)
        options = {"account_id": account.id, "actor": ACTOR, "now": now}
        await rename_account(session, name="Grace", **options)
        await suspend_account(session, **options)
        await resume_account(session, **options)
        assert (account.name, account.status, account.gateway_version) == ("Grace", "active", 4)
        assert len(await outbox_of(session, "account.changed")) == 4
        actions = [row.action for row in await audit_of(session, account.id)]
        assert sorted(actions) == ["account.created", "account.renamed", "account.resumed", "account.suspended"]

    async def test_suspending_twice_changes_nothing_the_second_time(self, session, now):
        account = await an_account(session, now=now)
        for _ in range(2):
            await suspend_account(session, account_id=account.id, actor=ACTOR, now=now)
        assert (account.status, account.gateway_version) == ("suspended", 2)
        assert len(await audit_of(session, account.id)) == 2

    async def test_a_deleted_account_does_not_change_any_more(self, session, now):
        account = await an_account(session, now=now)
        account.status = "deleted"
        with pytest.raises(AccountDeletedError):
            await resume_account(session, account_id=account.id, actor=ACTOR, now=now)

    async def test_an_unknown_account_is_named(self, session, now):
        with pytest.raises(NotFoundError) as missing:
            await rename_account(session, account_id="acc_x", name="A", actor=ACTOR, now=now)
        assert (missing.value.code, missing.value.identifier) == ("account_not_found", "acc_x")


class TestGatewayVersion:
    async def test_no_bump_is_lost_when_many_come_at_once(self, sessions, now):
        async with sessions() as session, session.begin():
            account_id = (await an_account(session, now=now)).id

        async def bump():
            async with sessions() as session, session.begin():
                await bump_gateway_version(session, account_id, now)

        await asyncio.gather(*(bump() for _ in range(20)))
        async with sessions() as session:
            assert (await session.get(Account, account_id)).gateway_version == 21
            assert len(await outbox_of(session, "account.changed")) == 21

    async def test_overlapping_crowds_are_bumped_without_deadlock(self, sessions, now):
        async with sessions() as session, session.begin():
            ids = [(await an_account(session, now=now)).id for _ in range(30)]

        async def bump(some):
            async with sessions() as session, session.begin():
                await bump_gateway_versions(session, some, now)

        await asyncio.gather(*(bump(reversed(ids)) if n % 2 else bump(ids) for n in range(8)))
        async with sessions() as session:
            versions = set(await session.scalars(select(Account.gateway_version)))
        assert versions == {9}

    async def test_deleted_accounts_of_a_crowd_are_passed_over(self, session, now):
        kept, gone = await an_account(session, now=now), await an_account(session, now=now)
        gone.status = "deleted"
        await bump_gateway_versions(session, [kept.id, gone.id, "acc_unknown"], now)
        rows = await session.execute(select(Account.id, Account.gateway_version))
        versions = {row.id: row.gateway_version for row in rows}
        assert versions == {kept.id: 2, gone.id: 1}


class TestAccountPage:
    async def test_goes_through_all_accounts_once(self, session, now):
        made = [(await an_account(session, now=now, name=f"Account {n}")).id for n in range(7)]
        seen, cursor = [], None
        while True:
            page = await queries.account_page(session, limit=3, cursor=cursor)
            seen += [account.id for account in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert sorted(seen) == sorted(made)
        assert len(seen) == 7

    async def test_finds_by_part_of_the_name_taken_literally(self, session, now):
        percent = await an_account(session, now=now, name="100% Weather")
        await an_account(session, now=now, name="100 Weather")
        page = await queries.account_page(session, limit=10, search="00% w")
        assert [account.id for account in page.items] == [percent.id]
