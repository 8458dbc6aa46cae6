"""Rules for texts that people type in."""

import re

from control_plane.foundation.errors import ValidationFailedError

MAX_NAME_LENGTH = 200
CODE_RULE = "must be lower-case letters, digits, `-` and `_`, begin with a letter, and have at most 48 characters"
_CODE = re.compile(r"[a-z][a-z0-9_-]{0,47}")


def clean_name(text: str, *, field: str = "name") -> str:
    """Return the name without spaces around it.

    Raises:
        ValidationFailedError: empty, longer than 200 characters, or with control characters.
    """
    name = text.strip()
    if not name:
        raise ValidationFailedError(field, "must not be empty")
    if len(name) > MAX_NAME_LENGTH:
        raise ValidationFailedError(field, f"must have at most {MAX_NAME_LENGTH} characters")
    if not name.isprintable():
        raise ValidationFailedError(field, "must not contain control characters")
    return name


def is_code(text: str) -> bool:
    """Say whether a text can be the code of an API product or a plan (it stands in receipts and addresses)."""
    return _CODE.fullmatch(text) is not None
