"""Tiers, shared by the graduated and the volume model.

The first tier starts at unit 1; each ends at `up_to` units (inclusive), the last has none (`null`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from control_plane.rating.model import EXACT, ZERO, Quantity, RatingError, Share, TierUse
from control_plane.rating.params import MAX_TIERS, read_amount, read_units, refuse_unknown
from control_plane.rating.words import TIMES, format_amount, format_share, format_units


@dataclass(frozen=True, slots=True)
class Tier:
    """Units above `above` and up to `up_to` (None: without end). `flat_amount` is due once a period when used."""

    above: int
    up_to: int | None
    unit_amount: Decimal
    flat_amount: Decimal


def read_tiers(params: Mapping[str, Any]) -> tuple[Tier, ...]:
    """Read {"tiers": [{"up_to": 1000, "unit_amount": "0.01", "flat_amount": "5"}, ..., {"up_to": null, ...}]}.

    Raises:
        RatingError: names the tier and part at fault, like `tiers[1].up_to`.
    """
    refuse_unknown(params, {"tiers"})
    values = params.get("tiers")
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_TIERS:
        raise RatingError("tiers", f"must be a list of 1 to {MAX_TIERS} tiers")
    tiers: list[Tier] = []
    for index, value in enumerate(values):
        try:
            tiers.append(_read_tier(value, above=tiers[-1].up_to if tiers else 0))
        except RatingError as error:
            raise RatingError(f"tiers[{index}].{error.field}", error.message) from error
    if tiers[-1].up_to is not None:
        raise RatingError(f"tiers[{len(tiers) - 1}].up_to", "must be null: the last tier has no end")
    return tuple(tiers)


def _read_tier(value: Any, *, above: int | None) -> Tier:
    if above is None:
        raise RatingError("up_to", "stands after a tier without end")
    if not isinstance(value, dict):
        raise RatingError("up_to", "a tier must be an object")
    refuse_unknown(value, {"up_to", "unit_amount", "flat_amount"})
    if "up_to" not in value:
        raise RatingError("up_to", "is missing; null is a tier without end")
    if "unit_amount" not in value and "flat_amount" not in value:
        raise RatingError("unit_amount", "is missing, as is flat_amount: a tier needs one of them")
    return Tier(
        above=above,
        up_to=None if value["up_to"] is None else read_units(value, "up_to", at_least=above + 1),
        unit_amount=read_amount(value, "unit_amount", default=ZERO),
        flat_amount=read_amount(value, "flat_amount", default=ZERO),
    )


def cut_tiers(tiers: tuple[Tier, ...], share: Share) -> tuple[Tier, ...]:
    """Return the tiers with their bounds cut by time, each rounded up; amounts are as before."""
    if share.is_whole:
        return tiers
    return tuple(
        Tier(
            above=share.of_units(tier.above),
            up_to=None if tier.up_to is None else share.of_units(tier.up_to),
            unit_amount=tier.unit_amount,
            flat_amount=tier.flat_amount,
        )
        for tier in tiers
    )


def use_tier(tier: Tier, *, units: int, used: Quantity) -> TierUse:
    """Return what `units` cost in the tier. Its flat amount is per period, so a part of a period pays its part."""
    flat = used.share.of(tier.flat_amount)
    return TierUse(
        first_unit=tier.above + 1,
        last_unit=tier.up_to,
        quantity=units,
        unit_amount=tier.unit_amount,
        flat_amount=flat,
        amount=EXACT.add(EXACT.multiply(Decimal(units), tier.unit_amount), flat),
    )


def tier_formula(tier: Tier, *, units: int, used: Quantity) -> str:
    """Return the product, and the flat amount where there is one."""
    text = f"{format_units(units, used.unit)} {TIMES} {format_amount(tier.unit_amount, used.currency)}"
    if tier.flat_amount:
        text += f" + {format_amount(tier.flat_amount, used.currency)}"
        text += "" if used.share.is_whole else f" {TIMES} {format_share(used.share)}"
    return text
