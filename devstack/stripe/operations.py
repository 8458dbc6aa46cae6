"""Imports every module that registers operations."""

import importlib
import pkgutil

import devstack.stripe.billing
import devstack.stripe.objects
from devstack.stripe.routes import ROUTES, Route


def load() -> list[Route]:
    """All operations; modules in `objects` and `billing` register theirs on import."""
    for package in (devstack.stripe.objects, devstack.stripe.billing):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(found.name)
    return ROUTES
