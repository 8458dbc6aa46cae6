"""Keys that another gateway gave out: their hashes come in, never a key."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field, StringConstraints

from control_plane.admin_api.access import Authenticated
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import Answer, Code, Moment, Name, PrintableText, StrictBody
from control_plane.admin_api.key_import import ImportOutcome, WantedAccount, import_accounts
from control_plane.admin_api.resources.accounts import ExternalId
from control_plane.admin_api.services import Now
from control_plane.foundation.errors import ValidationFailedError
from control_plane.keys.imports import ImportedKey
from gateway_contract.modes import Mode

router = APIRouter(tags=["keys"])
MAX_ACCOUNTS = 1000
MAX_KEYS = 5000

KeyHash = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-f]{64}$"),
    Field(description="SHA-256 of the key in lower-case hex. Hash it where the key is; never send a key."),
]

LastCharacters = Annotated[str, StringConstraints(min_length=4, max_length=4), PrintableText]


class ImportKey(StrictBody):
    key_hash: KeyHash
    name: Name
    mode: Mode = Mode.LIVE
    last_characters: Annotated[
        LastCharacters | None,
        Field(description="What people may see of it; left out where it has fewer than 20 characters."),
    ] = None
    expires_at: Moment | None = None


class ImportAccount(StrictBody):
    external_id: ExternalId
    name: Annotated[Name, Field(description="For an account that is not there yet.")]
    keys: Annotated[list[ImportKey], Field(min_length=1, max_length=MAX_KEYS)]


class ImportKeys(StrictBody):
    api_product: Code
    plan: Annotated[Code, Field(description="For accounts without a subscription to the product.")]
    allow_unlisted: Annotated[bool, Field(strict=True)] = False
    dry_run: Annotated[bool, Field(strict=True, description="Say what would be done, and do nothing.")] = False
    accounts: Annotated[list[ImportAccount], Field(min_length=1, max_length=MAX_ACCOUNTS)]


class ImportedAccountAnswer(Answer):
    external_id: str
    outcome: ImportOutcome
    reason: str = Field(description="Why it was refused; empty where it was not.")
    account_id: str | None
    subscription_id: str | None
    plan: str | None = Field(description="The plan it has now: its own where it was subscribed before.")
    subscribed: bool
    keys_created: int
    keys_existing: int


class ImportAnswer(Answer):
    dry_run: bool
    accounts: list[ImportedAccountAnswer] = Field(description="In the order in which they were given.")


@router.post("/keys/import")
async def import_keys(body: ImportKeys, session: Database, caller: Authenticated, now: Now) -> ImportAnswer:
    """Take over accounts and keys from another gateway, by the keys' hashes.

    All or nothing for each account; one whose key belongs to another account is refused, and the others go on.
    Repeating it changes nothing. At most 1,000 accounts and 5,000 keys at a time.
    """
    if sum(len(account.keys) for account in body.accounts) > MAX_KEYS:
        raise ValidationFailedError("accounts", f"must have at most {MAX_KEYS:,} keys in all")
    done = await import_accounts(
        session,
        [
            WantedAccount(
                external_id=account.external_id,
                name=account.name,
                keys=tuple(ImportedKey(**key.model_dump()) for key in account.keys),
            )
            for account in body.accounts
        ],
        product_code=body.api_product,
        plan_code=body.plan,
        allow_unlisted=body.allow_unlisted,
        dry_run=body.dry_run,
        actor=caller.actor,
        now=now,
    )
    return ImportAnswer(
        dry_run=body.dry_run, accounts=[ImportedAccountAnswer.model_validate(account) for account in done]
    )
