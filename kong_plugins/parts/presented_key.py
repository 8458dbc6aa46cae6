"""Finding the API key in a request: its headers, and its query where that is configured."""

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple
from urllib.parse import unquote, unquote_plus

from gateway_contract.api_keys import API_KEY_PATTERN, KEY_LENGTH, parse_api_key
from gateway_contract.outcomes import Outcome
from kong_plugins.parts.kong_request import may_be_cut_off, plain
from kong_plugins.parts.plugin_config import AccessConfig

AUTHORIZATION = "authorization"
_BEARER = "bearer "
_OUR_PREFIX = "km_"
_OUR_PREFIXES = ("km_live_", "km_test_")
# what an imported key may look like; long enough not to be a word, short enough for a header
_IMPORTED = re.compile(r"[!-~]{8,512}")


class PresentedKey(NamedTuple):
    """The one key in a request.

    `header` is the lower-case name of the header it came in, "" for the query; `query_without` is then the query
    as the upstream may see it.
    """

    text: str
    header: str
    query_without: str = ""


def read_presented_key(kong: Any, headers: dict[str, Any], config: AccessConfig) -> PresentedKey | Outcome:
    """Find the key; Kong is asked for the query only where a key may stand in it.

    A request with more headers than Kong gives is ambiguous: what is not seen may be another key, or claim in our
    names to the upstream who calls.
    """
    if may_be_cut_off(headers):
        return Outcome.AMBIGUOUS_KEY
    if not config.key_query:
        return find_presented_key(headers, config=config)
    raw_query = plain(kong.request.get_raw_query())
    return find_presented_key(headers, config=config, raw_query=raw_query if isinstance(raw_query, str) else "")


def find_presented_key(
    headers: Mapping[str, Any], *, config: AccessConfig, raw_query: str = ""
) -> PresentedKey | Outcome:
    """Find the one key in a request, or say NO_KEY, AMBIGUOUS_KEY or MALFORMED_KEY.

    `headers` by lower-case name, a repeated one as a list, as Kong gives them. A key in two places, or given twice
    in one, is ambiguous even where both are the same: nobody may choose whose call it is. An `Authorization`
    header counts only with a bearer token that looks like a key of ours, or any where keys are imported. Where
    calls without a key are served, one whose `Authorization` holds a key of ours in another form is MALFORMED_KEY:
    its caller means to be somebody.
    """
    presented = _one_key(headers, config, raw_query)
    if presented is Outcome.NO_KEY and config.anonymous and _holds_key(headers.get(AUTHORIZATION)):
        return Outcome.MALFORMED_KEY
    return presented


def _one_key(headers: Mapping[str, Any], config: AccessConfig, raw_query: str) -> PresentedKey | Outcome:
    presented = _key_in_headers(headers, config)
    if not raw_query or presented is Outcome.AMBIGUOUS_KEY:
        return presented
    found = _keys_in_query(raw_query, config.key_query)
    if not found:
        return presented
    if len(found) > 1 or presented is not Outcome.NO_KEY:
        return Outcome.AMBIGUOUS_KEY
    number, text = found[0]
    return PresentedKey(text, "", _without_argument(raw_query, number))


def key_hash_of(text: str, *, imported_keys: bool = False) -> str | None:
    """Return the SHA-256 of what may be a key, or None.

    A text of our form is not judged by its checksum here: `is_well_formed` must do that before any look-up.
    """
    if len(text) == KEY_LENGTH and text.startswith(_OUR_PREFIXES):
        return sha256(text.encode()).hexdigest() if text.isascii() else None
    if imported_keys and _IMPORTED.fullmatch(text):
        return sha256(text.encode()).hexdigest()
    return None


def is_well_formed(text: str) -> bool:
    """Judge what `key_hash_of` took for a key, without I/O: a key of our form by its checksum."""
    if len(text) == KEY_LENGTH and text.startswith(_OUR_PREFIXES):
        return parse_api_key(text) is not None
    return True


def _key_in_headers(headers: Mapping[str, Any], config: AccessConfig) -> PresentedKey | Outcome:
    text = source = None
    for name in config.key_headers:
        value = headers.get(name)
        if value:
            if text is not None or type(value) is not str:
                return Outcome.AMBIGUOUS_KEY
            text, source = value, name
    if config.bearer and source != AUTHORIZATION:
        value = headers.get(AUTHORIZATION)
        if value:
            token = _bearer_key(value, "" if config.imported_keys else _OUR_PREFIX)
            if token is not None:
                if text is not None or type(value) is not str:
                    return Outcome.AMBIGUOUS_KEY
                text, source = token, AUTHORIZATION
    if text is None or source is None:
        return Outcome.NO_KEY
    return PresentedKey(text, source)


def _bearer_key(value: Any, prefix: str) -> str | None:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str) and item[: len(_BEARER)].lower() == _BEARER:
            token = item[len(_BEARER) :].strip()
            if token and token.startswith(prefix):
                return token
    return None


def _holds_key(value: Any) -> bool:
    return any(API_KEY_PATTERN.search(str(one)) for one in (value if isinstance(value, list) else [value]))


def _keys_in_query(raw_query: str, names: tuple[str, ...]) -> list[tuple[int, str]]:
    """Return number and decoded value of each argument that has one of the names and a value.

    Names and values may be percent-encoded, as upstreams decode them; nothing else of the query is decoded.
    """
    found = []
    for number, part in enumerate(raw_query.split("&")):
        name, _, value = part.partition("=")
        if "%" in name:
            name = unquote(name)
        if value and name in names:
            found.append((number, unquote_plus(value) if "%" in value or "+" in value else value))
    return found


def _without_argument(raw_query: str, number: int) -> str:
    parts = raw_query.split("&")
    del parts[number]
    return "&".join(parts)
