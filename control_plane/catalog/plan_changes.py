"""Plans as code: comparing a plan file with the catalogue, and applying it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import zip_longest
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.locks import lock_catalog
from control_plane.catalog.meter_operations import create_meter, update_meter
from control_plane.catalog.meter_queries import facts_of_meter, meters
from control_plane.catalog.meters import MeterFacts
from control_plane.catalog.model import PlanFacts, PlanTerms, ProductFacts
from control_plane.catalog.operations import create_api_product, create_plan, update_api_product, update_plan
from control_plane.catalog.plan_file import PlanFile, PlanOffer
from control_plane.catalog.publishing import publish_version
from control_plane.catalog.queries import (
    api_products,
    facts_of_plan,
    facts_of_product,
    plans,
    published_versions,
    terms_of_version,
)


class ChangeKind(StrEnum):
    """What applying a file does to one thing."""

    CREATE = "create"
    UPDATE = "update"
    NEW_VERSION = "new_version"


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field by its path (`quota_units`, `prices[1].params.unit_amount`), JSON-ready before and after."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to one API product, meter, plan or add-on. A new version moves no subscription."""

    kind: ChangeKind
    entity_type: str
    code: str
    fields: tuple[FieldChange, ...] = ()

    def __str__(self) -> str:
        """`plan starter: new_version (quota_units: 50000 -> 60000)`."""
        fields = ", ".join(f"{field.field}: {field.before!r} -> {field.after!r}" for field in self.fields)
        return f"{self.entity_type} {self.code}: {self.kind}" + (f" ({fields})" if fields else "")


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """All changes, in the order they are made; `left_alone` names what is on sale but not in the file."""

    changes: tuple[Change, ...]
    left_alone: tuple[str, ...]


async def diff_plan_file(session: AsyncSession, file: PlanFile) -> PlanDiff:
    """Say what applying the file would change. Writes nothing."""
    product_rows = await api_products(session, archived=True)
    plan_rows = await plans(session, archived=True)
    versions = await published_versions(session, [row.id for row in plan_rows])
    meter_rows = await meters(session, archived=True)
    meters_there = {row.code: facts_of_meter(row) for row in meter_rows}
    archived_meters = {row.code for row in meter_rows if row.archived_at is not None}
    products_there = {row.code: facts_of_product(row) for row in product_rows}
    plans_there = {row.code: facts_of_plan(row) for row in plan_rows}
    archived = {row.code for row in plan_rows if row.archived_at is not None}
    terms_there = {row.code: terms_of_version(versions[row.id]) for row in plan_rows if row.id in versions}
    archived_products = {row.code for row in product_rows if row.archived_at is not None}
    changes = [
        _product_change(products_there.get(product.code), product, was_archived=product.code in archived_products)
        for product in file.products
    ]
    for offer in file.plans:
        code = offer.facts.code
        changes.append(_plan_change(plans_there.get(code), offer.facts, was_archived=code in archived))
        changes.append(_terms_change(terms_there.get(code), offer, is_new=code not in plans_there))
    changes[len(file.products) : len(file.products)] = [
        _meter_change(meters_there.get(meter.code), meter, archived_meters) for meter in file.meters
    ]
    in_file = {product.code for product in file.products}
    plans_in_file = {offer.facts.code for offer in file.plans}
    left = [f"api_product {row.code}" for row in product_rows if not row.archived_at and row.code not in in_file]
    left += [
        f"{row.kind} {row.code}" for row in plan_rows if not row.archived_at and row.code not in plans_in_file
    ]
    meters_in_file = {meter.code for meter in file.meters}
    left += [f"meter {row.code}" for row in meter_rows if not row.archived_at and row.code not in meters_in_file]
    return PlanDiff(tuple(change for change in changes if change is not None), tuple(left))


async def apply_plan_file(session: AsyncSession, file: PlanFile, *, actor: str, now: datetime) -> PlanDiff:
    """Make the catalogue as the file says, and say what that changed. All or nothing, if the caller commits so.

    Idempotent: a second time changes nothing. Never removes anything: see `left_alone`. A plan whose terms differ
    gets a new version; subscriptions keep the one they pinned.

    Raises:
        RouteTakenError: a route belongs to an API product that is not in the file, or gives it up further down
        in the file. ValidationFailedError: a plan would move to another API product. MeterInUseError: a meter
        would count otherwise under those who pay for it. MeterCodeTakenError, TooManyMetersError.
    """
    await lock_catalog(session)
    diff = await diff_plan_file(session, file)
    products = {product.code: product for product in file.products}
    offers = {offer.facts.code: offer for offer in file.plans}
    declared = {meter.code: meter for meter in file.meters}
    for change in diff.changes:
        if change.entity_type == "api_product":
            product = products[change.code]
            if change.kind is ChangeKind.CREATE:
                await create_api_product(session, product=product, actor=actor, now=now)
            else:
                await update_api_product(session, product=product, unarchive=True, actor=actor, now=now)
        elif change.entity_type == "meter":
            write_meter = create_meter if change.kind is ChangeKind.CREATE else update_meter
            await write_meter(session, meter=declared[change.code], actor=actor, now=now)
        elif change.kind is ChangeKind.NEW_VERSION:
            terms = offers[change.code].terms
            await publish_version(session, plan_code=change.code, terms=terms, actor=actor, now=now)
        else:
            write_plan = create_plan if change.kind is ChangeKind.CREATE else update_plan
            await write_plan(session, plan=offers[change.code].facts, actor=actor, now=now)
    return diff


def _product_change(there: ProductFacts | None, product: ProductFacts, *, was_archived: bool) -> Change | None:
    if there is None:
        return Change(ChangeKind.CREATE, "api_product", product.code)
    before = {**there.as_dict(), "archived": was_archived}
    fields = field_changes(before, {**product.as_dict(), "archived": False})
    return Change(ChangeKind.UPDATE, "api_product", product.code, fields) if fields else None


def _meter_change(there: MeterFacts | None, meter: MeterFacts, archived: Collection[str]) -> Change | None:
    if there is None:
        return Change(ChangeKind.CREATE, "meter", meter.code)
    before = {**there.as_dict(), "archived": meter.code in archived}
    fields = field_changes(before, {**meter.as_dict(), "archived": False})
    return Change(ChangeKind.UPDATE, "meter", meter.code, fields) if fields else None


def _plan_change(there: PlanFacts | None, plan: PlanFacts, *, was_archived: bool) -> Change | None:
    if there is None:
        return Change(ChangeKind.CREATE, plan.kind, plan.code)
    fields = field_changes({**there.as_dict(), "archived": was_archived}, {**plan.as_dict(), "archived": False})
    return Change(ChangeKind.UPDATE, plan.kind, plan.code, fields) if fields else None


def _terms_change(there: PlanTerms | None, offer: PlanOffer, *, is_new: bool) -> Change | None:
    kind, code = offer.facts.kind, offer.facts.code
    if is_new or there is None:
        return Change(ChangeKind.NEW_VERSION, kind, code)
    fields = field_changes(there.as_dict(), offer.terms.as_dict())
    return Change(ChangeKind.NEW_VERSION, kind, code, fields) if fields else None


def field_changes(before: Any, after: Any, path: str = "") -> tuple[FieldChange, ...]:
    """Return the smallest parts in which two JSON-ready values differ, in a stable order."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return tuple(
            change
            for name in dict.fromkeys([*before, *after])
            for change in field_changes(before.get(name), after.get(name), f"{path}.{name}".removeprefix("."))
        )
    if _are_lists(before, after):
        return tuple(
            change
            for index, (one, other) in enumerate(zip_longest(before, after))
            for change in field_changes(one, other, f"{path}[{index}]")
        )
    return () if before == after else (FieldChange(path, before, after),)


def _are_lists(before: Any, after: Any) -> bool:
    """Say whether to compare one by one: where a price is added the others are left out."""
    if not (isinstance(before, list) and isinstance(after, list)):
        return False
    return len(before) == len(after) or all(isinstance(value, Mapping) for value in (*before, *after))
