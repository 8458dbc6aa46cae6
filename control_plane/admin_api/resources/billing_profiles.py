"""Billing profiles: whom an account's invoices are addressed to."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field, StringConstraints

from control_plane.accounts.model import Role
from control_plane.admin_api.access import Authenticated, allows
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import AccountId, Answer, PrintableText, StrictBody
from control_plane.admin_api.services import Now
from control_plane.billing.profiles.model import MAX_ADDRESS_LINES, MAX_TEXT, BillingProfile, TaxTreatment
from control_plane.billing.profiles.operations import set_billing_profile
from control_plane.billing.profiles.queries import profile_or_default
from control_plane.foundation.errors import NotFoundError

router = APIRouter(prefix="/accounts/{account_id}/billing-profile", tags=["invoices"])

Text = Annotated[str, StringConstraints(strip_whitespace=True, max_length=MAX_TEXT), PrintableText]


class BillingProfileBody(StrictBody):
    legal_name: Annotated[Text, StringConstraints(min_length=1), Field(examples=["Acme GmbH"])]
    address_lines: list[Text] = Field(default_factory=list, max_length=MAX_ADDRESS_LINES)
    postal_code: Text = ""
    city: Text = ""
    region: Annotated[Text, Field(description="State or province, where taxes ask for it.")] = ""
    country: Annotated[str, Field(pattern="^([A-Z]{2})?$", description="ISO 3166, two capital letters.")] = ""
    tax_id: Text = ""
    invoice_email: Text = ""
    tax_treatment: Annotated[
        TaxTreatment, Field(description="`exempt` and `reverse_charge` pay no tax; the invoice says why.")
    ] = TaxTreatment.STANDARD


class BillingProfileAnswer(Answer):
    legal_name: str
    address_lines: list[str]
    postal_code: str
    city: str
    region: str
    country: str
    tax_id: str
    invoice_email: str
    tax_treatment: TaxTreatment


@router.get("")
async def get_billing_profile(account_id: AccountId, session: Database) -> BillingProfileAnswer:
    """Return an account's billing profile; its name and e-mail address where none was given."""
    profile = await profile_or_default(session, account_id)
    if profile is None:
        raise NotFoundError("account", account_id)
    return BillingProfileAnswer.model_validate(profile.as_dict())


@router.put("")
@allows(Role.FINANCE)
async def put_billing_profile(
    account_id: AccountId, body: BillingProfileBody, session: Database, caller: Authenticated, now: Now
) -> BillingProfileAnswer:
    """Replace an account's billing profile, whole. Invoices that are final keep what they say."""
    fields = body.model_dump()
    profile = BillingProfile(**{**fields, "address_lines": tuple(body.address_lines)})
    kept = await set_billing_profile(session, account_id=account_id, profile=profile, actor=caller.actor, now=now)
    return BillingProfileAnswer.model_validate(kept.as_dict())
