"""API tokens: known by their hash, refused when revoked or expired."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from control_plane.accounts.model import Role, hash_token
from control_plane.accounts.tokens import authenticate_token, create_token, revoke_token
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from tests.control_plane.builders import ACTOR, audit_of


async def a_token(session, now, **options):
    return await create_token(session, **{"name": "ci", "role": Role.ADMIN, **options}, actor=ACTOR, now=now)


class TestCreateToken:
    async def test_gives_the_text_once_and_keeps_only_its_hash(self, session, now):
        created = await a_token(session, now)
        assert created.text.startswith("kmt_")
        assert len(created.text) == 4 + 43
        assert created.text not in repr(created)
        stored = (await session.execute(text("SELECT api_tokens::text FROM api_tokens"))).scalar_one()
        assert created.text not in stored
        assert hash_token(created.text) in stored
        audit = (await session.execute(text("SELECT string_agg(audit_log::text, '') FROM audit_log"))).scalar_one()
        assert created.text not in audit
        assert hash_token(created.text) not in audit

    @pytest.mark.parametrize(
        ("field", "options"),
        [("role", {"role": "king"}), ("name", {"name": ""}), ("expires_at", {"expires_at": timedelta(0)})],
    )
    async def test_refuses_by_field(self, session, now, field, options):
        if "expires_at" in options:
            options = {"expires_at": now + options["expires_at"]}
        with pytest.raises(ValidationFailedError) as refused:
            await a_token(session, now, **options)
        assert refused.value.field == field


class TestAuthenticateToken:
    async def test_knows_the_token_by_its_text(self, session, now):
        created = await a_token(session, now)
        found = await authenticate_token(session, created.text, now)
        assert (found.id, found.role) == (created.token.id, "admin")

    @pytest.mark.parametrize(
        "wrong", ["", "kmt_", "kmt_" + "a" * 43, "kmt_" + "ä" * 43, "x" * 47, "kmt_" + "a" * 44]
    )
    async def test_knows_nobody_by_another_text(self, session, now, wrong):
        await a_token(session, now)
        assert await authenticate_token(session, wrong, now) is None

    async def test_refuses_a_revoked_token(self, session, now):
        created = await a_token(session, now)
        await revoke_token(session, token_id=created.token.id, actor=ACTOR, now=now)
        assert await authenticate_token(session, created.text, now) is None

    async def test_refuses_a_token_from_the_moment_it_expires(self, session, now):
        created = await a_token(session, now, expires_at=now + timedelta(hours=1))
        assert await authenticate_token(session, created.text, now + timedelta(minutes=59)) is not None
        assert await authenticate_token(session, created.text, now + timedelta(hours=1)) is None

    async def test_notes_the_last_use_at_most_once_a_minute(self, session, now):
        created = await a_token(session, now)
        for seconds in (0, 30, 59, 60, 61):
            await authenticate_token(session, created.text, now + timedelta(seconds=seconds))
        await session.refresh(created.token)
        assert created.token.last_used_at == now + timedelta(seconds=60)


class TestRevokeToken:
    async def test_twice_is_once(self, session, now):
        created = await a_token(session, now)
        for hours in (0, 1):
            at = now + timedelta(hours=hours)
            await revoke_token(session, token_id=created.token.id, actor=ACTOR, now=at)
        assert created.token.revoked_at == now
        assert [row.action for row in await audit_of(session, created.token.id)] == [
            "api_token.created",
            "api_token.revoked",
        ]

    async def test_names_an_unknown_token(self, session, now):
        with pytest.raises(NotFoundError):
            await revoke_token(session, token_id="tok_x", actor=ACTOR, now=now)
