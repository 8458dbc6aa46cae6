"""What makes products and terms acceptable, wherever they come from (plan file, API)."""

import re
from collections.abc import Collection
from dataclasses import replace

from control_plane.catalog.model import (
    BUILT_IN_METERS,
    EVERY_ROUTE,
    MAX_ENDPOINTS,
    Endpoint,
    ProductFacts,
)
from control_plane.catalog.prices import MAX_UNITS
from control_plane.foundation.errors import ValidationFailedError
from control_plane.foundation.money import UnknownCurrencyError, minor_units
from control_plane.foundation.text import CODE_RULE, clean_name, is_code
from gateway_contract.file_log import UnitHeaderError, render_privacy_expression
from gateway_contract.records import Concurrency

MAX_ROUTE_UNITS = 1_000_000
MAX_REPORTED_UNITS = 10**12
MAX_CONCURRENCY = 100_000
MIN_LEASE_MS = 1_000
MAX_LEASE_MS = 3_600_000
MIN_EVENT_RETENTION_DAYS = 90
MAX_EVENT_RETENTION_DAYS = 3660
MAX_ENTITLEMENTS = 100
MAX_TRIAL_DAYS = 365
MAX_SHOWN = 50
MAX_DESCRIPTION = 2_000
BILLABLE_BELOW = range(200, 601)
MAX_PATH_LENGTH = 256
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_ENTITLEMENT = re.compile(r"[a-z][a-z0-9_.:-]{0,63}")
_KONG_NAME = re.compile(r"[A-Za-z0-9._~-]{1,128}")


def check_code(code: str, *, field: str = "code") -> str:
    """Raises ValidationFailedError where the text cannot be a code."""
    if not is_code(code):
        raise ValidationFailedError(field, CODE_RULE)
    return code


def check_product(product: ProductFacts, *, field: str = "") -> ProductFacts:
    """Return the product with its name cleaned and header names in lower case.

    Raises:
        ValidationFailedError: names the first wrong field below `field`.
    """
    prefix = f"{field}." if field else ""
    check_code(product.code, field=f"{prefix}code")
    _check_kong_name(product.service, field=f"{prefix}service")
    if not product.routes:
        raise ValidationFailedError(f"{prefix}routes", "must name at least one Kong route")
    for index, route in enumerate(product.routes):
        _check_kong_name(route, field=f"{prefix}routes[{index}]")
        if route in product.routes[:index]:
            raise ValidationFailedError(f"{prefix}routes[{index}]", "is named twice")
    for route, units in product.route_units.items():
        if route not in product.routes:
            raise ValidationFailedError(f"{prefix}route_units.{route}", "is not one of the product's routes")
        if not 1 <= units <= MAX_ROUTE_UNITS:
            raise ValidationFailedError(f"{prefix}route_units.{route}", f"must be between 1 and {MAX_ROUTE_UNITS}")
    headers = _checked_unit_headers(product.unit_headers, field=f"{prefix}unit_headers")
    _check_unit_maximums(product, field=f"{prefix}unit_maximums")
    endpoints = _checked_endpoints(product.endpoints, field=f"{prefix}endpoints")
    return replace(
        product,
        name=clean_name(product.name, field=f"{prefix}name"),
        description=product.description.strip(),
        endpoints=endpoints,
        unit_headers=headers,
        replay_header=check_replay_header(product.replay_header, field=f"{prefix}replay_header"),
    )


def check_currency(currency: str, *, field: str = "currency") -> str:
    """Raises ValidationFailedError where no amounts can be kept in the currency."""
    try:
        minor_units(currency)
    except UnknownCurrencyError as error:
        raise ValidationFailedError(field, "must be an ISO 4217 code such as USD") from error
    return currency


def check_replay_header(header: str, *, field: str = "replay_header") -> str:
    """Return the header's name in lower case; '' where there is none.

    Raises:
        ValidationFailedError: not a name that the gateway can read.
    """
    try:
        render_privacy_expression({}, [header] if header else [])
    except UnitHeaderError as error:
        raise ValidationFailedError(field, str(error)) from error
    return header.lower()


def check_quota(units: int | None, *, field: str = "quota_units") -> int | None:
    """Raises ValidationFailedError where a quota is not at least 1, or too large to count exactly."""
    if units is not None and not 1 <= units <= MAX_UNITS:
        raise ValidationFailedError(field, f"must be between 1 and {MAX_UNITS}")
    return units


def check_quota_cap(
    cap: int | None, *, quota_units: int | None, quota_hard: bool, field: str = "quota_cap_units"
) -> int | None:
    """Raises ValidationFailedError where a cap has no quota below it, or one that refuses by itself."""
    if cap is None:
        return None
    if quota_units is None or quota_hard:
        raise ValidationFailedError(field, "needs a quota with on_exceed: charge")
    if not quota_units < cap <= MAX_UNITS:
        raise ValidationFailedError(field, f"must be greater than the quota's {quota_units} units")
    return cap


def check_concurrency(
    concurrency: Concurrency | None, *, field: str = "concurrency", lease_field: str = "lease_ms"
) -> Concurrency | None:
    """Raises ValidationFailedError where the limit or the lease is out of range."""
    if concurrency is None:
        return None
    if not 1 <= concurrency.limit <= MAX_CONCURRENCY:
        raise ValidationFailedError(f"{field}.limit", f"must be between 1 and {MAX_CONCURRENCY}")
    if not MIN_LEASE_MS <= concurrency.lease_ms <= MAX_LEASE_MS:
        raise ValidationFailedError(f"{field}.{lease_field}", "must be between 1 second and 1 hour")
    return concurrency


def check_billable_below(below: int | None, *, field: str = "billable_below") -> int | None:
    """Raises ValidationFailedError where the first status that is not billed makes no sense."""
    if below is not None and below not in BILLABLE_BELOW:
        raise ValidationFailedError(field, f"must be between {BILLABLE_BELOW.start} and {BILLABLE_BELOW.stop - 1}")
    return below


def check_event_retention(days: int | None, *, field: str = "event_retention_days") -> int | None:
    """Raises ValidationFailedError where the days are fewer than every plan has, or more than can be kept."""
    if days is not None and not MIN_EVENT_RETENTION_DAYS <= days <= MAX_EVENT_RETENTION_DAYS:
        raise ValidationFailedError(
            field, f"must be between {MIN_EVENT_RETENTION_DAYS} and {MAX_EVENT_RETENTION_DAYS}"
        )
    return days


def check_entitlements(names: Collection[str], *, field: str = "entitlements") -> tuple[str, ...]:
    """Return the names sorted, each once.

    Raises:
        ValidationFailedError: too many, or not the shape of a name.
    """
    for index, name in enumerate(names):
        if not _ENTITLEMENT.fullmatch(name):
            raise ValidationFailedError(
                f"{field}[{index}]", "must be lower-case letters, digits and _ . : -, and begin with a letter"
            )
    if len(names) > MAX_ENTITLEMENTS:
        raise ValidationFailedError(field, f"must have at most {MAX_ENTITLEMENTS} entries")
    return tuple(sorted(set(names)))


def check_trial(days: int | None, *, field: str = "trial_days") -> int | None:
    """Raises ValidationFailedError where a trial is shorter than a day or longer than a year."""
    if days is not None and not 1 <= days <= MAX_TRIAL_DAYS:
        raise ValidationFailedError(field, f"must be between 1 and {MAX_TRIAL_DAYS}")
    return days


def check_shown(lines: Collection[str], *, field: str = "features") -> tuple[str, ...]:
    """Return lines for people to read, cleaned, in the order given.

    Raises:
        ValidationFailedError: too many, or one that is empty, too long or there twice.
    """
    if len(lines) > MAX_SHOWN:
        raise ValidationFailedError(field, f"must have at most {MAX_SHOWN} entries")
    cleaned = tuple(clean_name(line, field=f"{field}[{index}]") for index, line in enumerate(lines))
    for index, line in enumerate(cleaned):
        if line in cleaned[:index]:
            raise ValidationFailedError(f"{field}[{index}]", "is there twice")
    return cleaned


def check_level(level: str | None, *, field: str) -> str | None:
    """Return the name of a service level, cleaned; None where there is none."""
    return None if level is None else clean_name(level, field=field)


def check_description(text: str, *, field: str = "description") -> str:
    """Return a description without spaces around it.

    Raises:
        ValidationFailedError: longer than 2,000 characters, or with control characters other than line breaks.
    """
    cleaned = text.strip()
    if len(cleaned) > MAX_DESCRIPTION:
        raise ValidationFailedError(field, f"must have at most {MAX_DESCRIPTION} characters")
    if not cleaned.replace("\n", "").isprintable():
        raise ValidationFailedError(field, "must not contain control characters")
    return cleaned


def _checked_unit_headers(headers: dict[str, str], *, field: str) -> dict[str, str]:
    for name in sorted(BUILT_IN_METERS.intersection(headers)):
        raise ValidationFailedError(f"{field}.{name}", "is the gateway's own meter: take another name")
    for dimension, header in headers.items():
        try:
            render_privacy_expression({dimension: header})
        except UnitHeaderError as error:
            raise ValidationFailedError(f"{field}.{dimension}", str(error)) from error
    return {dimension: header.lower() for dimension, header in headers.items()}


def _check_unit_maximums(product: ProductFacts, *, field: str) -> None:
    for route, maximums in product.unit_maximums.items():
        if route != EVERY_ROUTE and route not in product.routes:
            raise ValidationFailedError(f"{field}.{route}", "is not one of the product's routes, nor *")
        for dimension, most in maximums.items():
            if dimension not in product.unit_headers:
                raise ValidationFailedError(f"{field}.{route}.{dimension}", "is not one of the unit_headers")
            if not 0 <= most <= MAX_REPORTED_UNITS:
                raise ValidationFailedError(
                    f"{field}.{route}.{dimension}", f"must be between 0 and {MAX_REPORTED_UNITS}"
                )


def _checked_endpoints(endpoints: tuple[Endpoint, ...], *, field: str) -> tuple[Endpoint, ...]:
    if len(endpoints) > MAX_ENDPOINTS:
        raise ValidationFailedError(field, f"must have at most {MAX_ENDPOINTS} entries")
    seen: set[Endpoint] = set()
    for index, endpoint in enumerate(endpoints):
        if endpoint.method not in METHODS:
            raise ValidationFailedError(f"{field}[{index}].method", f"must be one of {', '.join(METHODS)}")
        if not endpoint.path_template.startswith("/") or len(endpoint.path_template) > MAX_PATH_LENGTH:
            raise ValidationFailedError(
                f"{field}[{index}].path_template",
                f"must begin with / and have at most {MAX_PATH_LENGTH} characters",
            )
        if endpoint in seen:
            raise ValidationFailedError(f"{field}[{index}]", "is named twice")
        seen.add(endpoint)
    return endpoints


def _check_kong_name(name: str, *, field: str) -> None:
    if not _KONG_NAME.fullmatch(name):
        raise ValidationFailedError(field, "must be the name of a Kong entity: letters, digits and . _ ~ -")
