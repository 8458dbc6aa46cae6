"""How properties are tested here: without time limits, which a loaded machine would break."""

from hypothesis import HealthCheck, settings

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Use it as a decorator, or as the parent of other settings."""
