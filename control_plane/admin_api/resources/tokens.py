"""API tokens: who may use this API. Owners only."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from control_plane.accounts import queries, tokens
from control_plane.accounts.model import Role
from control_plane.accounts.tables import ApiToken
from control_plane.admin_api.access import Owner
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import Answer, Moment, Name, StrictBody, TokenId
from control_plane.admin_api.services import Now

router = APIRouter(prefix="/tokens", tags=["tokens"])


class CreateToken(StrictBody):
    name: Name = Field(examples=["ci"])
    role: Role
    expires_at: Moment | None = None


class TokenAnswer(Answer):
    id: str
    name: str
    role: Role
    created_at: Moment
    expires_at: Moment | None
    revoked_at: Moment | None
    last_used_at: Moment | None = Field(description="To the minute.")


class CreatedTokenAnswer(BaseModel):
    """The only time that `text` is shown."""

    token: TokenAnswer
    text: Annotated[str, Field(examples=["kmt_…"])]


class TokensAnswer(BaseModel):
    items: list[TokenAnswer]


def answer(token: ApiToken) -> TokenAnswer:
    return TokenAnswer.model_validate(token)


@router.post("", status_code=201)
async def create_token(body: CreateToken, session: Database, caller: Owner, now: Now) -> CreatedTokenAnswer:
    """Make a token. Its text is in this answer and never again."""
    created = await tokens.create_token(
        session, name=body.name, role=body.role, expires_at=body.expires_at, actor=caller.actor, now=now
    )
    return CreatedTokenAnswer(token=answer(created.token), text=created.text)


@router.get("")
async def list_tokens(session: Database, _caller: Owner) -> TokensAnswer:
    """List all tokens, revoked ones too, newest first."""
    return TokensAnswer(items=[answer(token) for token in await queries.api_tokens(session)])


@router.post("/{token_id}/revoke")
async def revoke_token(token_id: TokenId, session: Database, caller: Owner, now: Now) -> TokenAnswer:
    """Refuse the token from now on. Repeating changes nothing."""
    return answer(await tokens.revoke_token(session, token_id=token_id, actor=caller.actor, now=now))
