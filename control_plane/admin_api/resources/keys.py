"""API keys of an account."""

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from control_plane.accounts import queries as account_queries
from control_plane.admin_api.access import Authenticated
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import (
    AccountId,
    Answer,
    KeyId,
    Line,
    Moment,
    Name,
    PageAnswer,
    PageQuery,
    StrictBody,
    Units,
    WindowForm,
    page_answer,
)
from control_plane.admin_api.services import Now
from control_plane.foundation.windows import MAX_WINDOWS
from control_plane.keys import operations, queries
from control_plane.keys.model import MAX_IP_RANGES, MAX_SCOPES, KeyOrigin
from control_plane.keys.operations import IssuedKey
from control_plane.keys.tables import ApiKey
from gateway_contract.modes import Mode
from gateway_contract.records import FULL_SCOPE, Window

router = APIRouter(tags=["keys"])
MAX_OVERLAP_SECONDS = 90 * 86_400

Scopes = Annotated[
    list[Line], Field(max_length=MAX_SCOPES, description="`full` (alone), or `read_only` and names of your own.")
]
Windows = Annotated[
    list[WindowForm], Field(max_length=MAX_WINDOWS, description="Limits of this key, within its account's plan.")
]
IpRanges = Annotated[
    list[Line],
    Field(max_length=MAX_IP_RANGES, description="Addresses or CIDR ranges that may use the key; empty: all."),
]
QuotaUnits = Annotated[Units | None, Field(description="The key's share of the plan's quota a billing period.")]


class IssueKey(StrictBody):
    name: Name = Field(examples=["production"])
    mode: Mode
    scopes: Scopes = Field(default_factory=lambda: [FULL_SCOPE])
    windows: Windows = Field(default_factory=list)
    quota_units: QuotaUnits = None
    ip_ranges: IpRanges = Field(default_factory=list)
    expires_at: Moment | None = None


class UpdateKey(StrictBody):
    """What is left out stays as it is; null removes a quota share or an expiry."""

    name: Name = ""
    scopes: Scopes = Field(default_factory=list)
    windows: Windows = Field(default_factory=list)
    quota_units: QuotaUnits = None
    ip_ranges: IpRanges = Field(default_factory=list)
    expires_at: Moment | None = None

    def changes(self) -> dict[str, Any]:
        """Return what the caller gave, and only that."""
        given: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set}
        if "windows" in given:
            given["windows"] = _windows(self.windows)
        return given


class RotateKey(StrictBody):
    overlap_seconds: Annotated[
        int,
        Field(strict=True, ge=0, le=MAX_OVERLAP_SECONDS, description="How long the old key goes on working."),
    ] = 0


class KeyAnswer(Answer):
    id: str
    account_id: str
    name: str
    mode: Mode
    hint: str | None = Field(
        description="Its beginning and last four characters; of imported keys the last four, null for short ones.",
        examples=["km_live_…9aZq"],
    )
    origin: str = Field(description="`issued` here, or `imported` from another gateway.")
    status: str = Field(description="`active` or `revoked`; an expired key stays `active`.")
    scopes: list[str]
    windows: list[WindowForm]
    quota_units: int | None
    ip_ranges: list[str]
    expires_at: Moment | None
    created_at: Moment
    revoked_at: Moment | None


class KeyDetailAnswer(KeyAnswer):
    key_hash: str | None = Field(
        description="The key's SHA-256, by which a plugin's `anonymous` option names it; it opens nothing. "
        "Null for imported keys: a weak one could be guessed from it."
    )


class IssuedKeyAnswer(BaseModel):
    """The only time that `text`, the key itself, is shown."""

    key: KeyAnswer
    text: str


def answer(key: ApiKey) -> KeyAnswer:
    return KeyAnswer.model_validate(key)


def _issued(issued: IssuedKey) -> IssuedKeyAnswer:
    return IssuedKeyAnswer(key=answer(issued.key), text=issued.text)


def _windows(forms: list[WindowForm]) -> list[Window]:
    return [Window(limit=form.limit, window_ms=form.window_ms) for form in forms]


@router.post("/accounts/{account_id}/keys", status_code=201)
async def issue_key(
    account_id: AccountId, body: IssueKey, session: Database, caller: Authenticated, now: Now
) -> IssuedKeyAnswer:
    """Issue a key. Its text is in this answer and never again: only its SHA-256 is kept."""
    issued = await operations.issue_key(
        session,
        account_id=account_id,
        name=body.name,
        mode=body.mode,
        scopes=body.scopes,
        windows=_windows(body.windows),
        quota_units=body.quota_units,
        ip_ranges=body.ip_ranges,
        expires_at=body.expires_at,
        actor=caller.actor,
        now=now,
    )
    return _issued(issued)


@router.get("/accounts/{account_id}/keys")
async def list_keys(
    account_id: AccountId, session: Database, query: Annotated[PageQuery, Query()]
) -> PageAnswer[KeyAnswer]:
    """List an account's keys, revoked ones too, newest first."""
    await account_queries.account(session, account_id)
    page = await queries.key_page(session, account_id, limit=query.limit, cursor=query.cursor)
    return page_answer(page, answer)


@router.get("/keys/{key_id}")
async def get_key(key_id: KeyId, session: Database) -> KeyDetailAnswer:
    """Return one key; never its text."""
    key = await queries.key(session, key_id)
    key_hash = key.key_hash if key.origin == KeyOrigin.ISSUED else None
    return KeyDetailAnswer(**answer(key).model_dump(), key_hash=key_hash)


@router.patch("/keys/{key_id}")
async def update_key(
    key_id: KeyId, body: UpdateKey, session: Database, caller: Authenticated, now: Now
) -> KeyAnswer:
    """Change a key's name or restrictions; they hold from its next call on."""
    key = await operations.update_key(session, key_id=key_id, **body.changes(), actor=caller.actor, now=now)
    return answer(key)


@router.post("/keys/{key_id}/rotate", status_code=201)
async def rotate_key(
    key_id: KeyId, body: RotateKey, session: Database, caller: Authenticated, now: Now
) -> IssuedKeyAnswer:
    """Issue a key with the same restrictions and end the old one, at once or after an overlap."""
    overlap = timedelta(seconds=body.overlap_seconds)
    issued = await operations.rotate_key(session, key_id=key_id, overlap=overlap, actor=caller.actor, now=now)
    return _issued(issued)


@router.post("/keys/{key_id}/revoke")
async def revoke_key(key_id: KeyId, session: Database, caller: Authenticated, now: Now) -> KeyAnswer:
    """Refuse the key from its next call on, on every gateway node. Repeating changes nothing."""
    return answer(await operations.revoke_key(session, key_id=key_id, actor=caller.actor, now=now))
