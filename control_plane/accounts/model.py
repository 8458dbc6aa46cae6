"""Roles, and the shape of API tokens."""

import hashlib
import re
import secrets
import zoneinfo
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from control_plane.foundation.errors import ValidationFailedError
from control_plane.foundation.money import UnknownCurrencyError, minor_units

TOKEN_BYTES = 32
MAX_EXTERNAL_ID = 200
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,190}")
_TOKEN = re.compile(r"kmt_[A-Za-z0-9_-]{43}")


class Role(StrEnum):
    """What the holder of a token may do in the admin API; the API decides by it."""

    OWNER = "owner"
    ADMIN = "admin"
    FINANCE = "finance"
    SUPPORT = "support"
    READ_ONLY = "read_only"
    # reports application events and may do nothing else
    INGEST = "ingest"


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """What the audit log keeps of an account."""

    name: str
    email: str | None
    status: str
    currency: str
    time_zone: str
    external_id: str | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def generate_token() -> str:
    """Return a new token text: `kmt_` and 43 base64url characters (256 random bits)."""
    return f"kmt_{secrets.token_urlsafe(TOKEN_BYTES)}"


def is_token(text: str) -> bool:
    """Say whether a text has a token's shape; spares the look-up of anything else."""
    return _TOKEN.fullmatch(text) is not None


def hash_token(text: str) -> str:
    """Return the SHA-256 of a token as 64 lower-case hex digits: the only form that is stored."""
    return hashlib.sha256(text.encode()).hexdigest()


def check_email(email: str | None) -> str | None:
    """Raises ValidationFailedError where the text is no email address."""
    if email is not None and not _EMAIL.fullmatch(email):
        raise ValidationFailedError("email", "must be an email address")
    return email


def check_external_id(external_id: str) -> str:
    """Raises ValidationFailedError where the text cannot be an id that another system uses."""
    if not (1 <= len(external_id) <= MAX_EXTERNAL_ID and external_id.isprintable()):
        raise ValidationFailedError("external_id", f"must be 1 to {MAX_EXTERNAL_ID} printable characters")
    return external_id


def check_currency(currency: str) -> str:
    """Raises ValidationFailedError where the text is no ISO 4217 code."""
    try:
        minor_units(currency)
    except UnknownCurrencyError as error:
        raise ValidationFailedError("currency", "must be an ISO 4217 code such as USD") from error
    return currency


def check_time_zone(time_zone: str) -> str:
    """Raises ValidationFailedError where the text is no IANA time zone."""
    if time_zone not in zoneinfo.available_timezones():
        raise ValidationFailedError("time_zone", "must be an IANA time zone such as Europe/Berlin")
    return time_zone
