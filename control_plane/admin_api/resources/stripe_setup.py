"""What an installation needs at Stripe: setting it up, examining it, and laying plans there."""

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field, StringConstraints

from control_plane.admin_api.access import Authenticated, Owner
from control_plane.admin_api.forms import Answer, PrintableText, StrictBody
from control_plane.admin_api.stripe_access import StripeGiven
from control_plane.stripe_sync.catalog.difference import Step
from control_plane.stripe_sync.catalog.push import VersionSteps
from control_plane.stripe_sync.catalog.pushing import Pushed, look_only, push_now
from control_plane.stripe_sync.catalog.wanted import OursHere
from control_plane.stripe_sync.installation.doctor import examine
from control_plane.stripe_sync.installation.findings import Standing
from control_plane.stripe_sync.installation.setup import set_up

router = APIRouter(prefix="/stripe", tags=["stripe"])
Url = Annotated[str, StringConstraints(min_length=1, max_length=2_000), PrintableText]


class SetUpBody(StrictBody):
    """Where Stripe reaches this installation."""

    url: Annotated[Url, Field(description="The address that `/webhooks/stripe` is added to.")]
    new_secrets: Annotated[
        bool, Field(description="Make the webhooks anew, for their secrets; the former ones are deleted.")
    ] = False


class SetUpThingAnswer(Answer):
    """One thing at Stripe that belongs to the installation."""

    thing: str
    stripe_id: str | None
    action: Literal["made", "changed", "as it was", "failed"]
    url: str = Field(description="Where Stripe sends to; empty for what sends nothing.")
    because: list[str]
    secret: str | None = Field(description="Its signing secret: told once, and kept nowhere. Null if made before.")


class SetUpAnswer(Answer):
    """What was made, changed, or found as it should be."""

    things: list[SetUpThingAnswer]


class FindingAnswer(Answer):
    """One thing that was looked at."""

    about: str
    standing: Standing = Field(description="`advice` is what Stripe does not tell: look yourself.")
    says: str


class DoctorAnswer(Answer):
    """All that was looked at; `healthy` where nothing is a problem."""

    healthy: bool
    findings: list[FindingAnswer]


class SyncBody(StrictBody):
    """Whether to do it."""

    dry_run: Annotated[bool, Field(description="Only say what would be done.")] = False


class StripeStepAnswer(Answer):
    """What one object at Stripe needs."""

    thing: Literal["product", "meter", "price"]
    name: str
    stripe_id: str | None = Field(description="Null where Stripe does not have it.")
    action: Literal["create", "update", "none"]
    because: list[str]
    problems: list[str] = Field(description="Why it cannot be done.")

    @classmethod
    def of(cls, step: Step) -> "StripeStepAnswer":
        return cls(
            thing=step.thing,
            name=step.name,
            stripe_id=step.stripe_id,
            action=step.action,
            because=list(step.because),
            problems=list(step.problems),
        )


class OwnRatedPriceAnswer(Answer):
    """A price that our rating charges, by a line on Stripe's invoice."""

    position: int
    currency: str
    model: str
    meter: str | None
    reason: str

    @classmethod
    def of(cls, ours: OursHere) -> "OwnRatedPriceAnswer":
        return cls(
            position=ours.position,
            currency=ours.currency,
            model=ours.model,
            meter=ours.meter,
            reason=ours.reason,
        )


class VersionAtStripeAnswer(Answer):
    """A plan version at Stripe. `looked_at`: nothing was done."""

    version: str = Field(description="Like `pro v3`.")
    plan_version_id: str
    state: Literal["pushed", "waiting", "refused", "looked_at"]
    problems: list[str]
    steps: list[StripeStepAnswer] = Field(description="What was done or is to be done; what needs nothing is out.")
    ours: list[OwnRatedPriceAnswer]

    @classmethod
    def of_pushed(cls, pushed: Pushed) -> "VersionAtStripeAnswer":
        return cls(
            version=pushed.name,
            plan_version_id=pushed.version_id,
            state=pushed.state,
            problems=list(pushed.problems),
            steps=[StripeStepAnswer.of(step) for step in pushed.steps if _matters(step)],
            ours=[OwnRatedPriceAnswer.of(ours) for ours in pushed.ours],
        )

    @classmethod
    def of_look(cls, found: VersionSteps) -> "VersionAtStripeAnswer":
        return cls(
            version=found.wanted.name,
            plan_version_id=found.wanted.version_id,
            state="looked_at",
            problems=found.problems,
            steps=[StripeStepAnswer.of(step) for step in found.steps if _matters(step)],
            ours=[OwnRatedPriceAnswer.of(ours) for ours in found.wanted.ours],
        )


class PlansAtStripeAnswer(Answer):
    """All plan versions that Stripe should have. `agrees`: nothing is left to be done."""

    dry_run: bool
    agrees: bool
    versions: list[VersionAtStripeAnswer]


def _matters(step: Step) -> bool:
    return step.action != "none" or bool(step.problems)


@router.post("/setup")
async def set_up_stripe(stripe: StripeGiven, body: SetUpBody, caller: Owner) -> SetUpAnswer:
    """Make the webhooks and the customers' portal at Stripe, or find them and put them right. Repeatable."""
    things = await set_up(stripe, base_url=body.url, new_secrets=body.new_secrets, actor=caller.actor)
    return SetUpAnswer(things=[SetUpThingAnswer.model_validate(thing) for thing in things])


@router.get("/doctor")
async def examine_stripe(stripe: StripeGiven, _caller: Authenticated) -> DoctorAnswer:
    """Say whether this installation can do at Stripe what it has to: key, webhooks, portal, plans, taxes."""
    findings = await examine(stripe)
    return DoctorAnswer(
        healthy=all(finding.standing != "problem" for finding in findings),
        findings=[FindingAnswer.model_validate(finding) for finding in findings],
    )


@router.post("/sync")
async def sync_plans_with_stripe(
    stripe: StripeGiven, body: SyncBody, caller: Authenticated
) -> PlansAtStripeAnswer:
    """Lay all plans that Stripe bills there, and mend what was changed there. Repeatable.

    It happens by itself when a plan is published; this is for what was refused or drifted.
    """
    if body.dry_run:
        return await _looked_at(stripe)
    pushed = await push_now(stripe, actor=caller.actor)
    return PlansAtStripeAnswer(
        dry_run=False,
        agrees=all(one.state == "pushed" and not one.problems for one in pushed),
        versions=[VersionAtStripeAnswer.of_pushed(one) for one in pushed],
    )


@router.get("/drift")
async def compare_plans_with_stripe(stripe: StripeGiven, _caller: Authenticated) -> PlansAtStripeAnswer:
    """Say what of our plans differs at Stripe: archived, renamed, missing, or somebody else's. Changes nothing."""
    return await _looked_at(stripe)


async def _looked_at(stripe: StripeGiven) -> PlansAtStripeAnswer:
    found = await look_only(stripe)
    return PlansAtStripeAnswer(
        dry_run=True,
        agrees=not any(one.to_do or one.problems for one in found),
        versions=[VersionAtStripeAnswer.of_look(one) for one in found],
    )
