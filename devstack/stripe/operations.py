"""Imports every module that registers operations."""

import importlib
import pkgutil

from fastapi import APIRouter

import devstack.stripe.billing
import devstack.stripe.objects
from devstack.stripe.routes import PAGES, ROUTES, Route
from devstack.stripe.simulator import Simulator


def load() -> list[Route]:
    """All operations; modules in `objects` and `billing` register theirs on import."""
    for package in (devstack.stripe.objects, devstack.stripe.billing):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(found.name)
    return ROUTES


def pages(sim: Simulator) -> list[APIRouter]:
    """What is for people to look at (`routes.pages` registers it)."""
    return [make(sim) for make in PAGES]
