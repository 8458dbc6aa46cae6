"""What the patterns of forms ask for, in words: nobody should have to read a regular expression."""

import re

_ID = re.compile(r"\^([a-z]+)_\[[^]]+\]\{(\d+)\}\$")
_HEADER = "must be the name of a header: letters, digits and -"
_STATUS = "must be a status or a range of them, such as 404, 4xx or 400-428"
_COUNTRY = "must be an ISO 3166 code of two capital letters, such as DE"
_KONG_NAME = "must be a name as Kong has them: letters, digits, and . _ ~ -"
_WORDS = {
    r"^[A-Z]{3}$": "must be an ISO 4217 code such as USD",
    r"^[A-Z]{2}$": _COUNTRY,
    r"^([A-Z]{2})?$": f"{_COUNTRY}, or empty",
    r"^[a-z][a-z0-9_-]{0,47}$": "must be a code: a letter, then letters, digits, _ or -, all lower case, "
    "at most 48 in all",
    r"^[a-z][a-z0-9_]{0,47}$": "must be a code: a letter, then letters, digits or _, all lower case, "
    "at most 48 in all",
    r"^[a-z][a-z0-9_]{0,31}$": "must be a code: a letter, then letters, digits or _, all lower case, "
    "at most 32 in all",
    r"^[A-Za-z0-9][A-Za-z0-9_-]{2,47}$": "must be a code of 3 to 48 letters, digits, _ or -, "
    "the first of them a letter or a digit",
    r"^[A-Za-z0-9]{8}$": "must be a referral code: 8 letters and digits",
    r"^[A-Za-z0-9_.:-]{1,100}$": "must be a name: letters, digits, and _ . : -, at most 100 in all",
    r"^[0-9]{1,12}(\.[0-9]{1,12})?$": "must be an amount, not below 0, such as 49.00",
    r"^-?[0-9]{1,12}(\.[0-9]{1,12})?$": "must be an amount such as 49.00 or -5.00",
    r"^[0-9]{1,3}(\.[0-9]{1,4})?$": "must be a percentage such as 20 or 2.5, with at most 4 decimals",
    r"^[0-9a-f]{64}$": "must be a SHA-256 hash: 64 digits and letters a to f, all lower case",
    r"^[A-Za-z0-9-]{1,64}$": f"{_HEADER}, at most 64 in all",
    r"^[A-Za-z0-9-]{0,64}$": f"{_HEADER}, at most 64 in all, or empty",
    r"^[A-Za-z0-9._~-]+$": _KONG_NAME,
    r"^([A-Za-z0-9._~-]+|\*)$": f"{_KONG_NAME}; or * for all",
    r"^([1-9]xx|[0-9]{1,3}(-[0-9]{1,3})?)$": _STATUS,
    r"^([1-9]xx|[0-9]{1,3}(-[0-9]{1,3})?)$|^$": f"{_STATUS}; or empty",
    r"^https?://[^\s]+$": "must be an http or https URL",
    r"^[^\x00-\x08\x0b-\x1f\x7f]*$": "must not hold control characters",
}


def pattern_words(pattern: str) -> str | None:
    """Return what a pattern asks for; None of one that is not known here."""
    if found := _ID.fullmatch(pattern):
        return f"must be an id: {found[1]}_ and {found[2]} letters and digits"
    return _WORDS.get(pattern)
