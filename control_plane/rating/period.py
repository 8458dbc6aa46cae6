"""All prices of one subscription in one billing period."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from control_plane.foundation.money import minor_units
from control_plane.rating.charging import fixed_charge, usage_charge
from control_plane.rating.commitment import USAGE, Commitment
from control_plane.rating.model import EXACT, Charge, Quantity, RatedLine
from control_plane.rating.rate import rated_line
from control_plane.rating.runs import Run
from control_plane.rating.versions import VersionPrice


class ChargeKind(StrEnum):
    """What a line of an invoice is for."""

    RECURRING = "recurring"
    USAGE = "usage"
    SETUP_FEE = "setup_fee"
    COMMITMENT = "commitment"


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedPrice:
    """One price, rated. `used_units`: all billable units of its meter, included ones too."""

    version_id: str
    position: int
    kind: ChargeKind
    meter: str | None
    used_units: int | None
    line: RatedLine


_KINDS = {
    "flat": ChargeKind.RECURRING,
    "setup_fee": ChargeKind.SETUP_FEE,
    "commitment": ChargeKind.COMMITMENT,
}


def rate_period(runs: Iterable[Run]) -> tuple[RatedPrice, ...]:
    """Return every price of a subscription in a billing period, rated; `runs` in order of first start. Pure.

    Lines come in the order of the runs, then of their prices; commitments last. Prices of which nothing is due
    have a line of 0, but for setup fees that are not due.

    Raises:
        RatingError: units are negative, or a run's time is no part of its period.
    """
    runs = tuple(runs)
    several = sum(1 for run in runs if not run.version.is_add_on) > 1
    rated: list[RatedPrice] = []
    minimums: list[RatedPrice] = []
    for run in runs:
        named = several or run.version.is_add_on
        own: list[RatedPrice] = []
        for price in run.version.prices:
            kind = _KINDS.get(price.model, ChargeKind.USAGE)
            if kind is ChargeKind.COMMITMENT or (kind is ChargeKind.SETUP_FEE and not run.setup_fee_due):
                continue
            charge = fixed_charge(run, price) if price.meter is None else usage_charge(run, price, price.meter)
            own.append(_rated(run, price, kind, charge, named=named))
        rated += own
        minimums += [
            _rated(run, price, ChargeKind.COMMITMENT, _minimum(run, price.price, own), named=named)
            for price in run.version.prices
            if isinstance(price.price, Commitment)
        ]
    return (*rated, *minimums)


def _minimum(run: Run, price: Commitment, own: Iterable[RatedPrice]) -> Charge:
    currency = run.version.currency
    charged_minor = sum(
        rated.line.amount_minor for rated in own if price.counts != USAGE or rated.kind is ChargeKind.USAGE
    )
    return price.charge(
        Quantity(
            units=0,
            unit=run.version.prices[0].unit,
            currency=currency,
            share=run.share,
            charged=EXACT.scaleb(Decimal(charged_minor), -minor_units(currency)),
        )
    )


def _rated(run: Run, price: VersionPrice, kind: ChargeKind, charge: Charge, *, named: bool) -> RatedPrice:
    version = run.version
    return RatedPrice(
        version_id=version.version_id,
        position=price.position,
        kind=kind,
        meter=price.meter,
        used_units=None if price.meter is None else run.used_units(price.meter),
        line=rated_line(
            charge,
            description=_described(version.name, price.description) if named else price.description,
            currency=version.currency,
        ),
    )


def _described(name: str, description: str) -> str:
    return f"{name}: {description}" if description else name
