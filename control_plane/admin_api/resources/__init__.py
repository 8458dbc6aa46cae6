"""One file for each kind of thing: its forms, and its routes over the features' operations."""

from fastapi import APIRouter

from control_plane.admin_api.resources import (
    accounts,
    audit,
    gateway,
    keys,
    plan_files,
    plans,
    products,
    subscriptions,
    tokens,
)

RESOURCES: tuple[APIRouter, ...] = (
    accounts.router,
    keys.router,
    products.router,
    plan_files.router,
    plans.router,
    subscriptions.router,
    gateway.router,
    audit.router,
    tokens.router,
)
