"""From stored events to figures in PostgreSQL: every touched hour recomputed whole, then sealed.

Owns: `usage_hourly` and what is derived from it, seals, which repeated answers are billed.
Does not own: how events came (collect), what figures cost (rating).
"""
