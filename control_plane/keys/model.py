"""What an API key may be restricted to."""

import ipaddress
import re
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

from control_plane.foundation.errors import ValidationFailedError
from gateway_contract.records import FULL_SCOPE, READ_ONLY_SCOPE

MAX_SCOPES = 32
MAX_IP_RANGES = 100
MAX_QUOTA_UNITS = 2**53 - 1  # what a Lua number counts exactly
_CUSTOM_SCOPE = re.compile(r"[a-z][a-z0-9_.:-]{0,63}")


_KEY_HASH = re.compile(r"[0-9a-f]{64}")


class KeyOrigin(StrEnum):
    """Where a key was made: here, or by another gateway, whose keys have any form."""

    ISSUED = "issued"
    IMPORTED = "imported"


def is_key_hash(text: str) -> bool:
    """Say whether a text is a SHA-256 as we write it; anything else may be a key that somebody sent by mistake."""
    return _KEY_HASH.fullmatch(text) is not None


def check_scopes(scopes: Iterable[str]) -> list[str]:
    """Return the scopes without repetition: `full`, or `read_only` and custom names.

    Raises:
        ValidationFailedError: none, too many, not the shape of a scope, or `full` beside others.
    """
    checked: list[str] = []
    for index, scope in enumerate(scopes):
        if not _CUSTOM_SCOPE.fullmatch(scope):
            raise ValidationFailedError(
                f"scopes[{index}]",
                f"must be {FULL_SCOPE}, {READ_ONLY_SCOPE} or a name of lower-case letters, digits and _ . : -",
            )
        if scope not in checked:
            checked.append(scope)
    if not 1 <= len(checked) <= MAX_SCOPES:
        raise ValidationFailedError("scopes", f"must have 1 to {MAX_SCOPES} entries")
    if FULL_SCOPE in checked and len(checked) > 1:
        raise ValidationFailedError("scopes", f"{FULL_SCOPE} includes every other scope: name it alone")
    return checked


def check_ip_ranges(ranges: Iterable[str]) -> list[str]:
    """Return the ranges in CIDR form without repetition; a single address becomes /32 or /128.

    Raises:
        ValidationFailedError: too many, not an IPv4 or IPv6 range, or a range with host bits.
    """
    checked: list[str] = []
    for index, text in enumerate(ranges):
        try:
            network = ipaddress.ip_network(text.strip(), strict=False)
        except ValueError as error:
            raise ValidationFailedError(f"ip_ranges[{index}]", "must be an IP address or a CIDR range") from error
        address = ipaddress.ip_interface(text.strip()).ip
        if address != network.network_address:
            raise ValidationFailedError(f"ip_ranges[{index}]", f"has host bits set; did you mean {network}?")
        if str(network) not in checked:
            checked.append(str(network))
    if len(checked) > MAX_IP_RANGES:
        raise ValidationFailedError("ip_ranges", f"must have at most {MAX_IP_RANGES} entries")
    return checked


def check_expiry(expires_at: datetime | None, *, now: datetime) -> datetime | None:
    """Return the expiry.

    Raises:
        ValidationFailedError: no time zone, or not in the future.
    """
    if expires_at is not None:
        if expires_at.tzinfo is None:
            raise ValidationFailedError("expires_at", "must have a time zone")
        if expires_at <= now:
            raise ValidationFailedError("expires_at", "must be in the future")
    return expires_at


def check_quota_units(quota_units: int | None) -> int | None:
    """Return the key's share of the quota.

    Raises:
        ValidationFailedError: below 1, or more than can be counted exactly.
    """
    if quota_units is not None and not 1 <= quota_units <= MAX_QUOTA_UNITS:
        raise ValidationFailedError("quota_units", f"must be between 1 and {MAX_QUOTA_UNITS}")
    return quota_units
