"""Daily rollups, and how long hourly ones are kept.

Owns: `usage_daily`, made from `usage_hourly` once a day is over; dropping the hours of days long past.
Does not own: hourly figures and seals (rollups), reading both together (`usage.figures`), raw events (store).
"""
