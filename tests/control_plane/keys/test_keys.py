"""API keys: shown once, restricted, rotated and revoked, each change with its version, audit row and news."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text

from control_plane.accounts.operations import AccountDeletedError
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from control_plane.keys import queries
from control_plane.keys.operations import (
    KeyExpiredError,
    KeyRevokedError,
    issue_key,
    revoke_key,
    rotate_key,
    update_key,
)
from gateway_contract.api_keys import hash_api_key, parse_api_key
from gateway_contract.records import Window
from tests.control_plane.builders import ACTOR, a_key, an_account, audit_of, outbox_of

HOUR = timedelta(hours=1)


async def every_value(session) -> str:
    """All rows of all tables as one text."""
    tables = await session.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
    dumps = []
    for table in tables.all():
        dump = await session.scalar(text(f'SELECT string_agg(t::text, chr(10)) FROM "{table}" AS t'))
        dumps.append(f"{table}: {dump}")
    return "\n".join(dumps)


class TestIssueKey:
    async def test_gives_a_key_of_the_contracts_shape(self, session, now):
        issued = await a_key(session, await an_account(session, now=now), now=now, mode="test")
        assert parse_api_key(issued.text) == "test"
        assert issued.key.hint.startswith("km_test_")
        assert issued.key.hint.endswith(issued.text[-4:])
        assert (issued.key.status, issued.key.scopes, issued.key.gateway_version) == ("active", ["full"], 1)
        assert await outbox_of(session, "key.changed") == [issued.key.id]

    async def test_the_key_is_stored_nowhere_only_its_hash(self, session, now):
        account = await an_account(session, now=now)
        issued = await a_key(session, account, now=now)
        rotated = await rotate_key(session, key_id=issued.key.id, overlap=HOUR, actor=ACTOR, now=now)
        await update_key(session, key_id=rotated.key.id, name="other", actor=ACTOR, now=now)
        await revoke_key(session, key_id=rotated.key.id, actor=ACTOR, now=now)
        stored = await every_value(session)
        for shown in (issued.text, rotated.text):
            assert shown not in stored
            assert shown[8:40] not in stored
            assert stored.count(hash_api_key(shown)) == 1
            assert shown not in repr(issued) + repr(rotated)

    async def test_is_found_by_its_hash(self, session, now):
        issued = await a_key(session, await an_account(session, now=now), now=now)
        assert (await queries.key_by_hash(session, hash_api_key(issued.text))).id == issued.key.id
        assert await queries.key_by_hash(session, "0" * 64) is None

    async def test_keeps_its_restrictions_in_canonical_form(self, session, now):
        issued = await a_key(
            session,
            await an_account(session, now=now),
            now=now,
            scopes=["read_only", "reports:write", "read_only"],
            windows=[Window(60, 60_000), Window(5, 1_000)],
            quota_units=100,
            ip_ranges=["10.0.0.0/8", " 192.0.2.7 ", "2001:DB8::/32", "10.0.0.0/8"],
            expires_at=now + HOUR,
        )
        key = issued.key
        assert key.scopes == ["read_only", "reports:write"]
        assert [window["limit"] for window in key.windows] == [5, 60]
        assert key.ip_ranges == ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"]

    @pytest.mark.parametrize(
        ("field", "options"),
        [
            ("mode", {"mode": "sandbox"}),
            ("name", {"name": "\t"}),
            ("scopes", {"scopes": []}),
            ("scopes", {"scopes": ["full", "read_only"]}),
            ("scopes[0]", {"scopes": ["Read Only"]}),
            ("scopes[1]", {"scopes": ["a", ""]}),
            ("windows[0].limit", {"windows": [Window(0, 1_000)]}),
            ("windows[0].window_ms", {"windows": [Window(1, 0)]}),
            ("quota_units", {"quota_units": 0}),
            ("ip_ranges[0]", {"ip_ranges": ["10.0.0.1/8"]}),
            ("ip_ranges[1]", {"ip_ranges": ["10.0.0.1", "10.0.0.0/33"]}),
            ("ip_ranges[0]", {"ip_ranges": ["localhost"]}),
            ("expires_at", {"expires_at": timedelta(0)}),
            ("expires_at", {"expires_at": -HOUR}),
        ],
    )
    async def test_refuses_by_field_and_leaves_nothing(self, session, now, field, options):
        account = await an_account(session, now=now)
        if "expires_at" in options:
            options = {"expires_at": now + options["expires_at"]}
        with pytest.raises(ValidationFailedError) as refused:
            await a_key(session, account, now=now, **options)
        assert refused.value.field == field
        assert (await queries.key_page(session, account.id, limit=10)).items == ()

    async def test_says_what_a_range_with_host_bits_meant(self, session, now):
        account = await an_account(session, now=now)
        with pytest.raises(ValidationFailedError, match=r"did you mean 10\.0\.0\.0/8\?"):
            await a_key(session, account, now=now, ip_ranges=["10.0.0.1/8"])

    async def test_refuses_accounts_that_are_not_there(self, session, now):
        with pytest.raises(NotFoundError):
            await issue_key(session, account_id="acc_x", name="k", mode="live", actor=ACTOR, now=now)
        account = await an_account(session, now=now)
        account.status = "deleted"
        with pytest.raises(AccountDeletedError):
            await a_key(session, account, now=now)


class TestUpdateKey:
    async def test_changes_what_is_given_and_leaves_the_rest(self, session, now):
        issued = await a_key(session, await an_account(session, now=now), now=now, ip_ranges=["10.0.0.0/8"])
        key = await update_key(
            session, key_id=issued.key.id, scopes=["read_only"], quota_units=5, actor=ACTOR, now=now
        )
        assert (key.scopes, key.quota_units, key.ip_ranges, key.gateway_version) == (
            ["read_only"],
            5,
            ["10.0.0.0/8"],
            2,
        )
        created, updated = await audit_of(session, key.id)
        assert updated.before["scopes"] == created.after["scopes"] == ["full"]
        assert updated.after["scopes"] == ["read_only"]

    async def test_none_takes_a_restriction_away(self, session, now):
        account = await an_account(session, now=now)
        issued = await a_key(session, account, now=now, expires_at=now + HOUR, quota_units=9)
        key = await update_key(
            session, key_id=issued.key.id, expires_at=None, quota_units=None, actor=ACTOR, now=now
        )
        assert (key.expires_at, key.quota_units) == (None, None)

    async def test_giving_what_is_there_changes_nothing(self, session, now):
        issued = await a_key(session, await an_account(session, now=now), now=now)
        key = await update_key(session, key_id=issued.key.id, name="server", scopes=["full"], actor=ACTOR, now=now)
        assert key.gateway_version == 1
        assert len(await audit_of(session, key.id)) == 1

    async def test_no_version_is_lost_when_changes_come_at_once(self, sessions, now):
        async with sessions() as session, session.begin():
            key_id = (await a_key(session, await an_account(session, now=now), now=now)).key.id

        async def rename(number):
            async with sessions() as session, session.begin():
                await update_key(session, key_id=key_id, name=f"name {number}", actor=ACTOR, now=now)

        await asyncio.gather(*(rename(number) for number in range(15)))
        async with sessions() as session:
            assert (await queries.key(session, key_id)).gateway_version == 16
            assert len(await outbox_of(session, "key.changed")) == 16

    async def test_a_revoked_key_does_not_change_any_more(self, session, now):
        issued = await a_key(session, await an_account(session, now=now), now=now)
        await revoke_key(session, key_id=issued.key.id, actor=ACTOR, now=now)
        with pytest.raises(KeyRevokedError):
            await update_key(session, key_id=issued.key.id, name="x", actor=ACTOR, now=now)


class TestRotateKey:
    async def test_the_old_key_lives_on_for_the_overlap(self, session, now):
        issued = await a_key(
            session, await an_account(session, now=now), now=now, scopes=["read_only"], ip_ranges=["10.0.0.0/8"]
        )
        rotated = await rotate_key(session, key_id=issued.key.id, overlap=HOUR, actor=ACTOR, now=now)
        old = await queries.key(session, issued.key.id)
        assert (old.status, old.expires_at, old.gateway_version) == ("active", now + HOUR, 2)
        assert (rotated.key.scopes, rotated.key.ip_ranges, rotated.key.expires_at) == (
            ["read_only"],
            ["10.0.0.0/8"],
            None,
        )
        assert rotated.text != issued.text
        (row,) = await audit_of(session, rotated.key.id)
        assert row.after["rotated_from"] == old.id

    async def test_without_overlap_the_old_key_is_revoked(self, session, now):
        issued = await a_key(session, await an_account(session, now=now), now=now)
        await rotate_key(session, key_id=issued.key.id, overlap=timedelta(0), actor=ACTOR, now=now)
        old = await queries.key(session, issued.key.id)
        assert (old.status, old.revoked_at) == ("revoked", now)

    async def test_an_earlier_expiry_stays(self, session, now):
        account = await an_account(session, now=now)
        issued = await a_key(session, account, now=now, expires_at=now + HOUR)
        rotated = await rotate_key(session, key_id=issued.key.id, overlap=5 * HOUR, actor=ACTOR, now=now)
        assert (await queries.key(session, issued.key.id)).expires_at == now + HOUR
        assert rotated.key.expires_at == now + HOUR

    @pytest.mark.parametrize("overlap", [-HOUR, timedelta(days=91)])
    async def test_refuses_an_overlap_out_of_range(self, session, now, overlap):
        issued = await a_key(session, await an_account(session, now=now), now=now)
        with pytest.raises(ValidationFailedError) as refused:
            await rotate_key(session, key_id=issued.key.id, overlap=overlap, actor=ACTOR, now=now)
        assert refused.value.field == "overlap"

    async def test_refuses_a_key_that_is_over(self, session, now):
        account = await an_account(session, now=now)
        expired = await a_key(session, account, now=now, expires_at=now + HOUR)
        with pytest.raises(KeyExpiredError):
            await rotate_key(session, key_id=expired.key.id, overlap=HOUR, actor=ACTOR, now=now + HOUR)


class TestRevokeKey:
    async def test_twice_is_once(self, session, now):
        issued = await a_key(session, await an_account(session, now=now), now=now)
        for hours in (0, 1):
            await revoke_key(session, key_id=issued.key.id, actor=ACTOR, now=now + hours * HOUR)
        key = await queries.key(session, issued.key.id)
        assert (key.status, key.revoked_at, key.gateway_version) == ("revoked", now, 2)

    async def test_names_an_unknown_key(self, session, now):
        with pytest.raises(NotFoundError):
            await revoke_key(session, key_id="key_x", actor=ACTOR, now=now)


class TestKeyPage:
    async def test_goes_through_an_accounts_keys_and_no_others(self, session, now):
        account, other = await an_account(session, now=now), await an_account(session, now=now)
        made = [(await a_key(session, account, now=now + n * HOUR)).key.id for n in range(5)]
        await a_key(session, other, now=now)
        first = await queries.key_page(session, account.id, limit=3)
        rest = await queries.key_page(session, account.id, limit=3, cursor=first.next_cursor)
        assert [key.id for key in (*first.items, *rest.items)] == made[::-1]
        assert rest.next_cursor is None
