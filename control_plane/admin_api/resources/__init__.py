"""One file for each kind of thing: its forms, and its routes over the features' operations."""

from fastapi import APIRouter

from control_plane.admin_api.resources import (
    accounts,
    audit,
    completeness,
    corrections,
    digests,
    disputes,
    exports,
    gateway,
    invoices,
    key_imports,
    keys,
    maintenance,
    plan_files,
    plans,
    products,
    requests,
    spend_caps,
    subscriptions,
    tokens,
    usage,
)

RESOURCES: tuple[APIRouter, ...] = (
    accounts.router,
    keys.router,
    key_imports.router,
    products.router,
    plan_files.router,
    plans.router,
    subscriptions.router,
    spend_caps.router,
    usage.router,
    corrections.router,
    completeness.router,
    digests.router,
    requests.router,
    exports.router,
    disputes.router,
    invoices.router,
    gateway.router,
    maintenance.router,
    audit.router,
    tokens.router,
)
