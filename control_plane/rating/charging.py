"""What one price comes to within a run: by time, or by use under the allowance that the run leaves it."""

from control_plane.rating.combine import combine
from control_plane.rating.model import AS_SOLD, Allowance, Charge, PriceModel, Quantity, RatingError, Share
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
    return _in_run(run, price, before)


def fixed_charge(run: Run, price: VersionPrice) -> Charge:
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


def usage_charge(run: Run, price: VersionPrice, meter: str) -> Charge:
    return combine(
        _in_run(run, price, before).charge(
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
    if any(stretch.units.get(meter, 0) < 0 for stretch in run.stretches):
        raise RatingError("units", f"of {meter} must not be negative")
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


def _in_run(run: Run, price: VersionPrice, units_before: int) -> PriceModel:
    allowance = _allowance(run, price, units_before)
    return price.price if allowance == AS_SOLD else price.price.under(allowance)


def _allowance(run: Run, price: VersionPrice, units_before: int) -> Allowance:
    version = run.version
    share = run.allowance_share
    own, extra = None, 0
    if price.meter == REQUESTS and not version.is_add_on and not version.quota_hard:
        own, extra = run.own_quota_units, run.extra_units
    return Allowance(
        share=share, units_before=units_before, own_units=own, extra_units=extra, quantity=run.quantity
    )
