"""The price models by name. A new one is added here and nowhere else."""

from collections.abc import Mapping
from typing import Any

from control_plane.rating.commitment import Commitment
from control_plane.rating.flat import Flat
from control_plane.rating.graduated import Graduated
from control_plane.rating.model import PriceModel, RatingError
from control_plane.rating.overage import Overage
from control_plane.rating.package import Package
from control_plane.rating.per_unit import PerUnit
from control_plane.rating.percentage import Percentage
from control_plane.rating.setup_fee import SetupFee
from control_plane.rating.volume import Volume

MODELS: Mapping[str, type[PriceModel]] = {
    "flat": Flat,
    "setup_fee": SetupFee,
    "commitment": Commitment,
    "per_unit": PerUnit,
    "overage": Overage,
    "graduated": Graduated,
    "volume": Volume,
    "package": Package,
    "percentage": Percentage,
}


def read_price(model: str, params: Mapping[str, Any], currency: str) -> PriceModel:
    """Return the price that a model's name and parameters describe, in a currency.

    Raises:
        RatingError: no such model, or a parameter is missing, unknown or out of range; names it.
    """
    if model not in MODELS:
        raise RatingError("model", f"must be one of {', '.join(MODELS)}")
    return MODELS[model].read(params, currency)
