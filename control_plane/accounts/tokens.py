"""Making, revoking and recognising API tokens. Nothing here commits; every change writes its audit row."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.model import Role, generate_token, hash_token, is_token
from control_plane.accounts.tables import ApiToken
from control_plane.foundation.audit import record_change
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from control_plane.foundation.ids import new_id
from control_plane.foundation.text import clean_name

LAST_USED_PRECISION = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class CreatedToken:
    """A new token; `text` is shown once and kept nowhere."""

    token: ApiToken
    text: str = field(repr=False)


async def create_token(
    session: AsyncSession,
    *,
    name: str,
    role: Role | str,
    expires_at: datetime | None = None,
    actor: str,
    now: datetime,
) -> CreatedToken:
    """Make an API token; its text is returned here and never again.

    Raises:
        ValidationFailedError: unknown role, name not usable, expiry not in the future.
    """
    if role not in tuple(Role):
        raise ValidationFailedError("role", f"must be one of {', '.join(Role)}")
    if expires_at is not None and expires_at <= now:
        raise ValidationFailedError("expires_at", "must be in the future")
    text = generate_token()
    token = ApiToken(
        id=new_id("tok", now),
        name=clean_name(name),
        token_hash=hash_token(text),
        role=str(role),
        created_at=now,
        expires_at=expires_at,
    )
    session.add(token)
    await session.flush()
    await record_change(
        session,
        actor=actor,
        action="api_token.created",
        entity_type="api_token",
        entity_id=token.id,
        before=None,
        after={
            "name": token.name,
            "role": token.role,
            "expires_at": expires_at.isoformat() if expires_at else None,
        },
        now=now,
    )
    return CreatedToken(token=token, text=text)


async def revoke_token(session: AsyncSession, *, token_id: str, actor: str, now: datetime) -> ApiToken:
    """Refuse the token from now on. Revoking a revoked token changes nothing.

    Raises:
        NotFoundError: no such token.
    """
    token = await session.get(ApiToken, token_id, with_for_update=True, populate_existing=True)
    if token is None:
        raise NotFoundError("api_token", token_id)
    if token.revoked_at is None:
        token.revoked_at = now
        await record_change(
            session,
            actor=actor,
            action="api_token.revoked",
            entity_type="api_token",
            entity_id=token.id,
            before={"revoked_at": None},
            after={"revoked_at": now.isoformat()},
            now=now,
        )
    return token


async def authenticate_token(session: AsyncSession, text: str, now: datetime) -> ApiToken | None:
    """Return the token that a text stands for, or None if unknown, revoked or expired.

    Notes when the token was last used, to the minute, so that most requests write nothing.
    """
    if not is_token(text):
        return None
    token = await session.scalar(select(ApiToken).where(ApiToken.token_hash == hash_token(text)))
    if token is None or token.revoked_at is not None:
        return None
    if token.expires_at is not None and token.expires_at <= now:
        return None
    if token.last_used_at is None or token.last_used_at <= now - LAST_USED_PRECISION:
        await session.execute(
            update(ApiToken)
            .where(ApiToken.id == token.id)
            .where(or_(ApiToken.last_used_at.is_(None), ApiToken.last_used_at < now))
            .values(last_used_at=now)
        )
    return token
