"""Plans, their versions and prices as answers show them."""

from typing import Any

from pydantic import BaseModel, Field

from control_plane.admin_api.forms import Moment, MoneyAnswer, WindowForm
from control_plane.billing.plan_impact import PlanImpact
from control_plane.catalog.currencies import currencies_of, prices_in
from control_plane.catalog.plan_changes import FieldChange
from control_plane.catalog.queries import concurrency_of
from control_plane.catalog.tables import Plan, PlanVersion, Price


class PriceAnswer(BaseModel):
    model: str = Field(
        description="`flat`, `setup_fee`, `commitment`, `per_unit`, `overage`, `graduated`, `volume`, `package` or"
        " `percentage`."
    )
    meter: str | None = Field(description="What it counts: `requests` or a named unit; null where nothing is.")
    params: dict[str, Any] = Field(description="Amounts are decimal strings.")
    description: str


class ConcurrencyAnswer(BaseModel):
    """At most `limit` calls at a time; one whose end nobody saw is given up after `lease_ms`."""

    limit: int
    lease_ms: int


class TrialAnswer(BaseModel):
    days: int
    after: str = Field(description="`continue` paid, or `cancel`.")


class VersionAnswer(BaseModel):
    """Terms; they never change once published."""

    id: str
    version: int
    status: str = Field(description="`draft`, `published` or `superseded`.")
    interval: str
    currency: str = Field(description="The currency of `prices`.")
    currencies: list[str] = Field(description="All in which it is sold. A version without prices suits every one.")
    trial: TrialAnswer | None
    payment: str = Field(description="`invoice`, or `prepaid`: usage is paid from credits.")
    billed_by: str = Field(description="`own` invoices or `stripe`.")
    quota_units: int | None = Field(description="Of an add-on: what each adds to the plan's.")
    quota_hard: bool = Field(description="Whether calls above the quota are refused (else they are charged).")
    quota_cap_units: int | None = Field(description="Where a quota that charges refuses after all.")
    quota_on_change: str = Field(
        description="What its allowance is worth when it begins within a billing period: `full`, `carry` or"
        " `prorated`."
    )
    windows: list[WindowForm]
    concurrency: ConcurrencyAnswer | None
    entitlements: list[str] = Field(description="Which routes may be called.")
    features: list[str] = Field(description="What the pricing page lists.")
    sla_level: str | None
    support_level: str | None
    redis_down: str
    on_past_due: str = Field(description="`serve` or `refuse` calls while a bill is unpaid.")
    billable_statuses: dict[str, int] | None
    event_retention_days: int | None = Field(
        description="How long single requests are kept at least; null: as long as the installation keeps them."
    )
    by_quote: bool
    prices: list[PriceAnswer]
    prices_in: dict[str, list[PriceAnswer]] = Field(description="The same prices in each other currency.")
    published_at: Moment | None


class PlanAnswer(BaseModel):
    id: str
    code: str
    kind: str = Field(description="`plan`, or `add_on`: sold beside a plan.")
    name: str
    description: str
    api_product: str = Field(description="Its code.")
    position: int = Field(description="Its place on the pricing page, from 0.")
    visibility: str
    recommended: bool
    archived_at: Moment | None
    published: VersionAnswer | None = Field(description="The version on sale.")


class FieldChangeAnswer(BaseModel):
    field: str
    before: Any
    after: Any


class VersionImpactAnswer(BaseModel):
    """Live subscriptions on one version whose accounts pay in one currency."""

    version: int
    currency: str
    subscriptions: int
    paying: int = Field(description="Of these, those neither in a trial nor paused.")
    recurring: MoneyAnswer = Field(description="Flat prices of those who pay, a month; of a year a twelfth.")
    new_recurring: MoneyAnswer | None = Field(
        description="The same on the new terms; null where these are not sold in the currency."
    )


class PlanImpactAnswer(BaseModel):
    """Whom new terms concern, and what would change each month if all moved to them. Publishing moves nobody."""

    plan: str
    versions: list[VersionImpactAnswer] = Field(description="The newest first.")


def impact_answer(impact: PlanImpact) -> PlanImpactAnswer:
    versions = [
        VersionImpactAnswer(
            version=one.version,
            currency=one.currency,
            subscriptions=one.subscriptions,
            paying=one.paying,
            recurring=MoneyAnswer.of(one.recurring_minor, one.currency),
            new_recurring=None
            if one.new_recurring_minor is None
            else MoneyAnswer.of(one.new_recurring_minor, one.currency),
        )
        for one in impact.versions
    ]
    return PlanImpactAnswer(plan=impact.plan, versions=versions)


def field_change_answer(change: FieldChange) -> FieldChangeAnswer:
    return FieldChangeAnswer(field=change.field, before=change.before, after=change.after)


def version_answer(version: PlanVersion) -> VersionAnswer:
    others = currencies_of(version)[1:]
    return VersionAnswer(
        id=version.id,
        version=version.version,
        status=version.status,
        interval=version.interval,
        currency=version.currency,
        currencies=list(currencies_of(version)),
        trial=None
        if version.trial_days is None
        else TrialAnswer(days=version.trial_days, after=version.after_trial),
        payment=version.payment,
        billed_by=version.billed_by,
        quota_units=version.quota_units,
        quota_hard=version.quota_hard,
        quota_cap_units=version.quota_cap_units,
        quota_on_change=version.quota_on_change,
        windows=[WindowForm(**window) for window in version.windows],
        concurrency=_concurrency_answer(version),
        entitlements=version.entitlements,
        features=version.features,
        sla_level=version.sla_level,
        support_level=version.support_level,
        redis_down=version.redis_down,
        on_past_due=version.on_past_due,
        billable_statuses=version.billable_statuses,
        event_retention_days=version.event_retention_days,
        by_quote=version.by_quote,
        prices=_prices(version, version.currency),
        prices_in={currency: _prices(version, currency) for currency in others},
        published_at=version.published_at,
    )


def plan_fields(plan: Plan, published: PlanVersion | None) -> dict[str, Any]:
    """Return the fields of a PlanAnswer; the plan is loaded with its product."""
    return {
        "id": plan.id,
        "code": plan.code,
        "kind": plan.kind,
        "name": plan.name,
        "description": plan.description,
        "api_product": plan.api_product.code,
        "position": plan.position,
        "visibility": plan.visibility,
        "recommended": plan.recommended,
        "archived_at": plan.archived_at,
        "published": version_answer(published) if published else None,
    }


def _concurrency_answer(version: PlanVersion) -> ConcurrencyAnswer | None:
    found = concurrency_of(version.concurrency_limit, version.concurrency_lease_ms)
    return None if found is None else ConcurrencyAnswer(limit=found.limit, lease_ms=found.lease_ms)


def _prices(version: PlanVersion, currency: str) -> list[PriceAnswer]:
    return [_price_answer(price) for price in prices_in(version, currency)]


def _price_answer(price: Price) -> PriceAnswer:
    return PriceAnswer(model=price.model, meter=price.meter, params=price.params, description=price.description)
