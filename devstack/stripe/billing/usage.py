"""How much of a meter a customer used: what invoices read of the meter events."""

from typing import TYPE_CHECKING

from devstack.stripe.objects.meter_store import aggregated_value

if TYPE_CHECKING:
    from devstack.stripe.simulator import Simulator


def units_used(sim: "Simulator", meter: str, customer: str, start: int, end: int) -> int:
    """Whole units in [start, end) as aggregated by now; a negative sum is given as it is."""
    return int(aggregated_value(sim, meter=meter, customer=customer, start=start, end=end))
