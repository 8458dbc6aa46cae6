"""How tests look at a subscription: its phases in the database, and short names for versions."""

from datetime import datetime
from typing import Any

from control_plane.catalog import queries as catalog
from control_plane.catalog.model import PriceTerms
from control_plane.subscriptions.timelines import timeline


def flat(amount: str, currency: str = "") -> PriceTerms:
    return PriceTerms(model="flat", meter=None, params={"amount": amount}, currency=currency)


def commitment(amount: str, counts: str) -> PriceTerms:
    return PriceTerms(model="commitment", meter=None, params={"amount": amount, "counts": counts})


async def phases_of(session, subscription) -> list[tuple[Any, ...]]:
    """Phases as they stand in the database: plan code, kind, start, end; add-ons as {code: quantity}, if any."""
    await session.commit()
    found = await timeline(session, subscription.id)
    versions = await catalog.plan_versions(session, found.version_ids)

    def code(version_id: str) -> str:
        return versions[version_id].plan.code

    return [
        (
            code(phase.plan_version_id),
            phase.kind.value,
            phase.starts_at,
            phase.ends_at,
            *([{code(held.plan_version_id): held.quantity for held in phase.add_ons}] if phase.add_ons else []),
        )
        for phase in found.phases
    ]


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+00:00")
