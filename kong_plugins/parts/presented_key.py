"""Finding the API key in a request's headers."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, TypeAlias

from gateway_contract.api_keys import KEY_LENGTH, parse_api_key
from gateway_contract.outcomes import Outcome

AUTHORIZATION = "authorization"
_BEARER = "bearer "

# the key's text and the (lower-case) header it came in, or why there is no key to look up
Presented: TypeAlias = tuple[str, str] | Outcome


def find_presented_key(headers: Mapping[str, Any], *, key_headers: Sequence[str], bearer: bool) -> Presented:
    """Find the one key in a request.

    `headers` by lower-case name, a repeated one as a list, as Kong gives them. A key in two places, or a header
    given twice, is AMBIGUOUS_KEY, even where both are the same: nobody may choose whose call it is. An
    `Authorization` header counts only with a bearer token that looks like a key of ours.
    """
    text = source = None
    for name in key_headers:
        value = headers.get(name)
        if value:
            if text is not None or type(value) is not str:
                return Outcome.AMBIGUOUS_KEY
            text, source = value, name
    if bearer:
        value = headers.get(AUTHORIZATION)
        if value:
            token = _bearer_key(value)
            if token is not None:
                if text is not None or type(value) is not str:
                    return Outcome.AMBIGUOUS_KEY
                text, source = token, AUTHORIZATION
    if text is None or source is None:
        return Outcome.NO_KEY
    return text, source


def key_hash_of(text: str) -> str | None:
    """Return the SHA-256 of a text of a key's length, or None. The checksum is not judged here."""
    if len(text) != KEY_LENGTH or not text.isascii():
        return None
    return sha256(text.encode()).hexdigest()


def is_well_formed(text: str) -> bool:
    """Judge shape and checksum, without I/O."""
    return parse_api_key(text) is not None


def _bearer_key(value: Any) -> str | None:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str) and item[: len(_BEARER)].lower() == _BEARER:
            token = item[len(_BEARER) :].strip()
            if token.startswith("km_"):
                return token
    return None
