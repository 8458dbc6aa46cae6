"""API keys: `km_live_` or `km_test_`, 32 random base62 characters, a 6-character checksum.

The checksum (CRC-32 of everything before it, in base62, left-padded) lets the gateway refuse a mistyped key
without any look-up. Only the SHA-256 of a key is ever stored.
"""

import hashlib
import re
import secrets
from zlib import crc32

from gateway_contract.modes import Mode

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
RANDOM_LENGTH = 32
CHECKSUM_LENGTH = 6
KEY_LENGTH = len("km_live_") + RANDOM_LENGTH + CHECKSUM_LENGTH

# Finds keys in any text: what redaction filters and the no-readable-key tests look for.
API_KEY_PATTERN = re.compile(r"km_(live|test)_[0-9A-Za-z]{38}")


def generate_api_key(mode: Mode) -> str:
    """Return a new key; 32 base62 characters are 190 bits of randomness. Shown once, never stored."""
    body = f"km_{mode.value}_" + "".join(secrets.choice(BASE62) for _ in range(RANDOM_LENGTH))
    return body + _checksum(body)


def parse_api_key(text: str) -> Mode | None:
    """Return the key's mode, or None where shape or checksum are wrong. No I/O; safe on any input."""
    if len(text) != KEY_LENGTH:
        return None
    match = API_KEY_PATTERN.fullmatch(text)
    if match is None or _checksum(text[:-CHECKSUM_LENGTH]) != text[-CHECKSUM_LENGTH:]:
        return None
    return Mode(match[1])


def hash_api_key(text: str) -> str:
    """Return the SHA-256 of the whole key as 64 lower-case hex digits: the only form that is stored."""
    return hashlib.sha256(text.encode()).hexdigest()


def api_key_hint(text: str) -> str:
    """Return what people may see of a key afterwards: `km_live_…` and its last four characters."""
    return f"{text[:8]}…{text[-4:]}"


def redact_api_keys(text: str) -> str:
    """Return the text with every API key in it replaced by its prefix and `[redacted]`."""
    return API_KEY_PATTERN.sub(r"km_\1_[redacted]", text)


def _checksum(body: str) -> str:
    number = crc32(body.encode())
    digits = []
    for _ in range(CHECKSUM_LENGTH):
        number, remainder = divmod(number, 62)
        digits.append(BASE62[remainder])
    return "".join(reversed(digits))
