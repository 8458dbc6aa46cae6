"""Whether a webhook is really Stripe's, and of now."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import stripe as sdk

TOLERANCE: Final = timedelta(minutes=5)
MAX_HEADER: Final = 4096
_TIMESTAMP = re.compile(r"(?:^|,)t=(\d{1,12})(?:,|$)")


class WrongSignatureError(ValueError):
    """No secret of ours signed this body, or it was signed too long ago or in the future."""


def split_secrets(setting: str) -> tuple[str, ...]:
    """Return the secrets of a setting, which may name several with commas while one replaces another."""
    return tuple(secret for part in setting.split(",") if (secret := part.strip()))


def verify(body: bytes, header: str, secrets: Sequence[str], *, now: datetime) -> None:
    """Return if one of the secrets signed the body within five minutes of `now`.

    Raises:
        WrongSignatureError: whatever else; also where there is no secret at all.
    """
    if not header.isascii() or len(header) > MAX_HEADER:
        raise WrongSignatureError("the signature cannot be read")
    if not any(_signed(body, header, secret) for secret in secrets):
        raise WrongSignatureError("the signature is not of a secret that this endpoint knows")
    signed_at = _TIMESTAMP.search(header)
    if signed_at is None or abs(int(signed_at[1]) - now.timestamp()) > TOLERANCE.total_seconds():
        raise WrongSignatureError("the signature is older than five minutes; are the clocks right?")


def _signed(body: bytes, header: str, secret: str) -> bool:
    try:
        # the age is judged above, by the clock that we were given
        return bool(sdk.WebhookSignature.verify_header(body, header, secret))
    except (sdk.SignatureVerificationError, UnicodeDecodeError):
        return False
