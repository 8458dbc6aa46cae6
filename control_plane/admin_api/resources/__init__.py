"""One file for each kind of thing: its forms, and its routes over the features' operations."""

from fastapi import APIRouter

from control_plane.admin_api.resources import accounts, audit, keys, plans, products, tokens

RESOURCES: tuple[APIRouter, ...] = (
    accounts.router,
    keys.router,
    products.router,
    plans.router,
    audit.router,
    tokens.router,
)
