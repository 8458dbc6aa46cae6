"""What one price comes to within a run: by time, or by use under the allowance that the run leaves it."""

from dataclasses import replace

from control_plane.rating.combine import combine
from control_plane.rating.explain import allowance_notes
from control_plane.rating.model import Allowance, Charge, PriceModel, Quantity, RatingError, Share
from control_plane.rating.runs import Run
from control_plane.rating.versions import CARRY, REQUESTS, VersionPrice


def price_in_run(run: Run, price: VersionPrice) -> PriceModel:
    """Return a price with its included units and tier bounds as they stand for the run, as spend caps need them.

    A version that carries and ran more than once in the period counts all that was used before its last stretch
    under other versions as used before its first: never cheaper than `rate_period`.
    """
    before = 0
    if price.meter is not None and run.version.quota_on_change == CARRY and run.stretches:
        own = sum(stretch.units.get(price.meter, 0) for stretch in run.stretches[:-1])
        before = max(0, run.stretches[-1].units_before.get(price.meter, 0) - own)
    allowance = _allowance(run, price, before)
    return price.price if allowance is None else price.price.under(allowance)


def fixed_charge(run: Run, price: VersionPrice) -> Charge:
    """Return what is due for the time, and for how many were held in it; of a setup fee, for how many at first."""
    held: dict[int, int] = {}
    for stretch in run.stretches:
        held[stretch.quantity] = held.get(stretch.quantity, 0) + stretch.covered_ms
    if price.model == "setup_fee":
        held = {run.stretches[0].quantity: run.period_ms}
    return combine(
        [
            price.price.charge(
                Quantity(
                    units=0,
                    unit=price.unit,
                    currency=run.version.currency,
                    share=Share(covered_ms, run.period_ms),
                    held=quantity,
                )
            )
            for quantity, covered_ms in held.items()
        ]
    )


def usage_charge(run: Run, price: VersionPrice, meter: str) -> Charge:
    """Return what the use of a meter costs.

    Raises:
        RatingError: units are negative.
    """
    return combine(
        [
            _part_charge(run, price, before=before, units=units, covered_ms=covered_ms)
            for before, units, covered_ms in _counted(run, meter)
        ]
    )


def _counted(run: Run, meter: str) -> list[tuple[int, int, int]]:
    """Return units used before, units and time of each stretch that is counted for itself.

    Only where a version carries does it matter when it ran; what follows on without other use between is one. A
    meter that is nowhere among the units before does not add up: its value is one, too.
    """
    counted: list[tuple[int, int, int]] = []
    carries = run.version.quota_on_change == CARRY
    for stretch in run.stretches:
        units = stretch.units.get(meter, 0)
        if units < 0:
            raise RatingError("units", f"of {meter} must not be negative, are {units}")
        before = stretch.units_before.get(meter) if carries else None
        if counted and (before is None or before == counted[-1][0] + counted[-1][1]):
            first, more, covered_ms = counted.pop()
            counted.append((first, more + units, covered_ms + stretch.covered_ms))
        else:
            counted.append((before or 0, units, stretch.covered_ms))
    return counted


def _part_charge(run: Run, price: VersionPrice, *, before: int, units: int, covered_ms: int) -> Charge:
    used = Quantity(
        units=units, unit=price.unit, currency=run.version.currency, share=Share(covered_ms, run.period_ms)
    )
    allowance = _allowance(run, price, before)
    if allowance is None:
        return price.price.charge(used)
    notes = allowance_notes(price.price, allowance, price.unit)
    return replace(price.price.under(allowance).charge(used), notes=notes)


def _allowance(run: Run, price: VersionPrice, units_before: int) -> Allowance | None:
    """Return what differs for the run from the price as it is sold, None for nothing."""
    version = run.version
    own, extra, quantity = None, 0, 1
    if version.is_add_on:
        quantity = run.quantity
    elif price.meter == REQUESTS and not version.quota_hard:
        own, extra = run.own_quota_units, run.extra_units
    share = run.allowance_share
    if own is None and extra == units_before == 0 and quantity == 1 and share.is_whole:
        return None
    return Allowance(share=share, units_before=units_before, own_units=own, extra_units=extra, quantity=quantity)
