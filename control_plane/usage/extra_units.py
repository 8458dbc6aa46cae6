"""What is billed of an hour beside its rows: used when hours are sealed, and when they are amended."""

from control_plane.usage.meters.values import priced_units_of_hours
from control_plane.usage.rollups.ledger import ExtraUnits

EXTRA_UNITS: tuple[ExtraUnits, ...] = (priced_units_of_hours,)
