"""Laying a plan version at Stripe: product, meters, prices.

It begins by looking what is there; each step is one call, and then one transaction that notes it. So it does not
matter where a process dies: whoever goes on finds what Stripe has, by ids and names that we gave, and does the
rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.db import is_any_of
from control_plane.stripe_sync.catalog import metrics
from control_plane.stripe_sync.catalog.difference import Step, steps
from control_plane.stripe_sync.catalog.facts import version_facts
from control_plane.stripe_sync.catalog.reading import read_actual
from control_plane.stripe_sync.catalog.tables import StripeMeter, StripePrice, StripeProduct
from control_plane.stripe_sync.catalog.wanted import Wanted, WantedMeter, WantedPrice, digest_of, wanted_of
from control_plane.stripe_sync.catalog.writing import write_meter, write_price, write_product
from control_plane.stripe_sync.model import StripeContext

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class VersionSteps:
    """What a plan version needs at Stripe: steps in order; `problems` keep all of them from being done."""

    wanted: Wanted
    steps: list[Step] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """Return why it cannot be laid there, as sentences."""
        of_steps = [f"{step.thing} {step.name}: {problem}" for step in self.steps for problem in step.problems]
        return [*self.wanted.problems, *of_steps]

    @property
    def to_do(self) -> list[Step]:
        """Return the steps that change something at Stripe."""
        return [step for step in self.steps if step.action != "none"]


async def look(context: StripeContext, version_ids: Sequence[str]) -> list[VersionSteps]:
    """Say what plan versions need at Stripe; changes nothing.

    Raises:
        StripeRefused, StripeUnavailable.
    """
    config = context.config
    async with context.sessions() as session:
        facts = await version_facts(session, version_ids)
        known = await _known_prices(session, version_ids)
    wanted = [
        wanted_of(facts[version], installation=config.installation, automatic_tax=config.automatic_tax)
        for version in version_ids
        if version in facts
    ]
    sound = [one for one in wanted if not one.problems]
    actual = await read_actual(context.stripe, sound, known_prices=list(known.values()))
    return [
        VersionSteps(
            wanted=one,
            steps=[] if one.problems else steps(one, actual, installation=config.installation, known=known),
        )
        for one in wanted
    ]


async def carry_out(context: StripeContext, found: VersionSteps, *, attempt: int) -> None:
    """Do what `look` found, without problems; idempotent. `attempt` is part of the idempotency keys.

    Raises:
        StripeRefused, StripeUnavailable.
    """
    wanted = found.wanted
    by_name = {(step.thing, step.name): step for step in found.steps}
    step = by_name["product", wanted.product.id]
    product_id = await write_product(context, wanted.product, step, attempt=attempt)
    await _note_product(context, wanted, product_id)
    meter_ids: dict[str, str] = {}
    for meter in wanted.meters:
        step = by_name["meter", meter.event_name]
        meter_ids[meter.event_name] = await write_meter(context, meter, step, attempt=attempt)
        await _note_meter(context, wanted, meter, meter_ids[meter.event_name])
    for price in wanted.prices:
        step = by_name["price", price.lookup_key]
        meter_id = meter_ids[price.event_name] if price.event_name else None
        price_id = await write_price(context, price, step, meter_id=meter_id, attempt=attempt)
        await _note_price(context, price, price_id, meter_id)
    for done in found.to_do:
        metrics.PUSHED.labels(thing=done.thing, action=done.action).inc()
        log.info("laid at Stripe", thing=done.thing, name=done.name, action=done.action, version=wanted.name)


async def _known_prices(session: AsyncSession, version_ids: Sequence[str]) -> dict[str, str]:
    rows = await session.execute(
        select(StripePrice.lookup_key, StripePrice.price_id).where(
            is_any_of(StripePrice.plan_version_id, version_ids)
        )
    )
    return {row.lookup_key: row.price_id for row in rows}


async def _note_product(context: StripeContext, wanted: Wanted, product_id: str) -> None:
    values = {
        "plan_id": wanted.product.plan_id,
        "product_id": product_id,
        "digest": product_digest(
            wanted.product.name, wanted.product.description, tax=wanted.product.tax_code is not None
        ),
        "pushed_at": context.now,
    }
    await _upsert(context, StripeProduct, values, key=["plan_id"])


async def _note_meter(context: StripeContext, wanted: Wanted, meter: WantedMeter, meter_id: str) -> None:
    values = {
        "meter_id": meter_id,
        "api_product_id": wanted.api_product_id,
        "meter": meter.meter,
        "event_name": meter.event_name,
        "digest": digest_of(meter.display_name),
        "pushed_at": context.now,
    }
    await _upsert(context, StripeMeter, values, key=["meter_id"])


async def _note_price(context: StripeContext, price: WantedPrice, price_id: str, meter_id: str | None) -> None:
    values = {
        "price_id": price_id,
        "plan_version_id": price.plan_version_id,
        "position": price.position,
        "currency": price.currency,
        "kind": price.native.kind,
        "product_id": price.product_id,
        "meter_id": meter_id,
        "lookup_key": price.lookup_key,
        "digest": price_digest(price),
        "active": True,
        "pushed_at": context.now,
    }
    await _upsert(context, StripePrice, values, key=["price_id"])


def product_digest(name: str, description: str, *, tax: bool) -> str:
    """Return a digest of what a product shows, by which a change of ours is noticed."""
    return digest_of(name, description, tax)


def price_digest(price: WantedPrice) -> str:
    """Return a digest of all that we give a price."""
    return digest_of(price.terms_digest, price.nickname, price.tax_behavior)


async def _upsert(
    context: StripeContext,
    table: type[StripeProduct | StripeMeter | StripePrice],
    values: dict[str, object],
    *,
    key: list[str],
) -> None:
    statement = insert(table).values(**values)
    changes = {name: statement.excluded[name] for name in values if name not in key}
    async with context.sessions() as session, session.begin():
        await session.execute(statement.on_conflict_do_update(index_elements=key, set_=changes))
