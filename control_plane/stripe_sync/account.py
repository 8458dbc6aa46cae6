"""Which account of Stripe's all our ids are of: another's key must not be mixed in."""

from sqlalchemy.dialects.postgresql import insert

from control_plane.foundation.errors import ConflictError
from control_plane.stripe_sync.catalog.tables import StripeSetup
from control_plane.stripe_sync.client import StripeKeyRefused
from control_plane.stripe_sync.model import StripeContext


class AccountDiffersError(ConflictError):
    """What is kept here is of another account of Stripe's, or of test mode where the key is live."""

    def __init__(self, kept: str, found: str) -> None:
        super().__init__(
            "stripe_account_differs",
            f"What is kept here lies in {kept}, and KM_STRIPE_KEY is of {found}. Go back to that key, or "
            "begin with an empty database.",
        )


async def account_id(context: StripeContext) -> str:
    """Return the id of the key's account; '' where the key may not read it.

    Raises:
        StripeRefused, StripeUnavailable.
    """
    try:
        return (await context.stripe.call(lambda c: c.v1.accounts.retrieve_current_async())).id
    except StripeKeyRefused as refused:
        if (
            context.config.is_restricted and not refused.is_unknown
        ):  # one that may do only what it needs is what we advise
            return ""
        raise


async def require_account(context: StripeContext) -> None:
    """Keep the account that the key is of, the first time; later see that it is the same.

    Raises:
        AccountDiffersError, StripeRefused, StripeUnavailable.
    """
    found, live = await account_id(context), context.config.is_live
    statement = insert(StripeSetup).values(
        installation=context.config.installation, account_id=found, live=live, updated_at=context.now
    )
    async with context.sessions() as session, session.begin():
        await session.execute(statement.on_conflict_do_nothing())
        kept = await session.get_one(StripeSetup, context.config.installation, with_for_update=True)
        same_account = not found or not kept.account_id or found == kept.account_id
        if kept.live != live or not same_account:
            raise AccountDiffersError(
                _words(kept.account_id, live=kept.live), _words(found or kept.account_id, live=live)
            )
        kept.account_id = kept.account_id or found


def _words(account: str, *, live: bool) -> str:
    return f"{'live' if live else 'test'} mode of account {account or '(unknown)'}"
