"""What PDK methods return to a plugin. kong-pdk knows two styles, and its plugins are written for one of them."""

from enum import Enum


class PdkStyle(Enum):
    """`PLAIN` is ours; the other two are what kong-pdk's own server gives, so that its plugins run unchanged.

    In both of kong-pdk's styles a header or query argument is a list, however often it came.
    """

    PLAIN = "plain"
    """Data; PdkError where there is none. A header that came once is a text, a repeated one a list."""

    PYTHON = "python"
    """kong-pdk's `--no-lua-style`: data; PdkError where there is none."""

    LUA = "lua"
    """kong-pdk's default: `(data, error)`; one of the two is None."""
