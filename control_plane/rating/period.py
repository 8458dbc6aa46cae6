"""All prices of one subscription in one billing period."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from control_plane.foundation.money import minor_units, round_minor
from control_plane.rating.combine import combine
from control_plane.rating.commitment import USAGE, Commitment
from control_plane.rating.model import (
    EXACT,
    Allowance,
    Charge,
    PriceModel,
    Quantity,
    RatedLine,
    Share,
)
from control_plane.rating.versions import CARRY, PRORATED, REQUESTS, RatedVersion, VersionPrice


class ChargeKind(StrEnum):
    """What a line of an invoice is for."""

    RECURRING = "recurring"
    USAGE = "usage"
    SETUP_FEE = "setup_fee"
    COMMITMENT = "commitment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A part of a run without a break: time that is paid, and what was used in it, by meter.

    `units_before`: what was used in the billing period before the stretch, under any version; only of meters that
    add up, and only needed for versions that carry. `quantity`: how many of an add-on were held.
    """

    covered_ms: int
    units: Mapping[str, int] = field(default_factory=dict)
    units_before: Mapping[str, int] = field(default_factory=dict)
    quantity: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A version of a plan or add-on within one billing period: its stretches in order of time.

    `starts_ms`: how long after the period's start the version first ran. `own_quota_units`: the subscription's own
    quota in place of the plan's. `extra_units`: what add-ons add to it. `setup_fee_due`: the setup fee falls into
    this period.
    """

    version: RatedVersion
    period_ms: int
    stretches: tuple[Stretch, ...]
    starts_ms: int = 0
    own_quota_units: int | None = None
    extra_units: int = 0
    setup_fee_due: bool = False

    @property
    def share(self) -> Share:
        """Return the part of the period for which the version ran."""
        return Share(sum(stretch.covered_ms for stretch in self.stretches), self.period_ms)

    @property
    def quantity(self) -> int:
        """Return the most that was held at one time."""
        return max((stretch.quantity for stretch in self.stretches), default=1)

    def used_units(self, meter: str) -> int:
        """Return what was used of a meter while the version ran."""
        return sum(stretch.units.get(meter, 0) for stretch in self.stretches)


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
            charge = _fixed(run, price) if price.meter is None else _by_use(run, price, price.meter)
            own.append(_rated(run, price, kind, charge, named=named))
        rated += own
        minimums += [
            _rated(run, price, ChargeKind.COMMITMENT, _minimum(run, price.price, own), named=named)
            for price in run.version.prices
            if isinstance(price.price, Commitment)
        ]
    return (*rated, *minimums)


def price_in_run(run: Run, price: VersionPrice) -> PriceModel:
    """Return a price with its included units and tier bounds as they stand for the run, as spend caps need them.

    A version that carries and ran more than once in the period counts all that was used before its last stretch
    under other versions as used before its first: never cheaper than `rate_period`.
    """
    before = 0
    if price.meter is not None and run.version.quota_on_change == CARRY and run.stretches:
        own = sum(stretch.units.get(price.meter, 0) for stretch in run.stretches[:-1])
        before = max(0, run.stretches[-1].units_before.get(price.meter, 0) - own)
    return price.price.under(_allowance(run, price, before))


def allowance_share(*, starts_ms: int, period_ms: int, quota_on_change: str) -> Share:
    """Return the part of an allowance that a version has which first runs `starts_ms` into a billing period.

    Under `prorated` it is the time that is left of the period, else the whole. What remains of it does not shrink
    when the version ends early: units that were included when they were used stay so.
    """
    return Share(period_ms - starts_ms if quota_on_change == PRORATED else period_ms, period_ms)


def _allowance(run: Run, price: VersionPrice, units_before: int) -> Allowance:
    version = run.version
    share = allowance_share(
        starts_ms=run.starts_ms, period_ms=run.period_ms, quota_on_change=version.quota_on_change
    )
    own, extra = None, 0
    if price.meter == REQUESTS and not version.is_add_on and not version.quota_hard:
        own, extra = run.own_quota_units, run.extra_units
    return Allowance(
        share=share, units_before=units_before, own_units=own, extra_units=extra, quantity=run.quantity
    )


def _fixed(run: Run, price: VersionPrice) -> Charge:
    """Charge an amount for the time, and for how many were held in it."""
    if price.model == "setup_fee":
        held = {run.stretches[0].quantity: run.period_ms} if run.stretches else {}
    else:
        held = {}
        for stretch in run.stretches:
            held[stretch.quantity] = held.get(stretch.quantity, 0) + stretch.covered_ms
    return combine(
        price.price.charge(
            Quantity(
                units=0,
                unit=price.unit,
                currency=run.version.currency,
                share=Share(covered_ms, run.period_ms),
                held=quantity,
            )
        )
        for quantity, covered_ms in (held or {run.quantity: 0}).items()
    )


def _by_use(run: Run, price: VersionPrice, meter: str) -> Charge:
    return combine(
        price.price.under(_allowance(run, price, before)).charge(
            Quantity(
                units=units,
                unit=price.unit,
                currency=run.version.currency,
                share=Share(covered_ms, run.period_ms),
            )
        )
        for before, units, covered_ms in _counted(run, meter)
    )


def _counted(run: Run, meter: str) -> list[tuple[int, int, int]]:
    """Return units used before, units and time of each stretch that is counted for itself.

    Only where a version carries does it matter when it ran; what follows on without other use between is one.
    """
    if run.version.quota_on_change != CARRY:
        return [(0, run.used_units(meter), run.share.covered_ms)]
    counted: list[tuple[int, int, int]] = []
    for stretch in run.stretches:
        before, units = stretch.units_before.get(meter, 0), stretch.units.get(meter, 0)
        if counted and before == counted[-1][0] + counted[-1][1]:
            first, more, covered_ms = counted.pop()
            counted.append((first, more + units, covered_ms + stretch.covered_ms))
        else:
            counted.append((before, units, stretch.covered_ms))
    return counted or [(0, 0, 0)]


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
        line=RatedLine(
            description=_described(version.name, price.description) if named else price.description,
            formula=charge.formula,
            quantity=charge.quantity,
            unit_amount=charge.unit_amount,
            tiers=charge.tiers,
            exact_amount=charge.amount,
            amount_minor=round_minor(charge.amount, version.currency),
            currency=version.currency,
        ),
    )


def _described(name: str, description: str) -> str:
    return f"{name}: {description}" if description else name
