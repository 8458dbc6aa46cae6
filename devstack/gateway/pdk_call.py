"""What a PDK method works on, and how it says no."""

from dataclasses import dataclass
from typing import Any, Final

from devstack.gateway.exchange import Exchange, Exit

ACCESS: Final = frozenset({"access"})
# Kong runs an external plugin's log phase in a timer, where little of nginx is left
LOG: Final = frozenset({"log"})
ANY: Final = ACCESS | LOG


class PdkError(Exception):
    """The method raised: in Kong the request is answered with 500, in the log phase only logged."""


class ExitRequestedError(Exception):
    """`kong.response.exit`: the plugin answers the request."""

    def __init__(self, answer: Exit) -> None:
        super().__init__(f"exit with status {answer.status}")
        self.answer = answer


@dataclass
class PdkCall:
    """One event's view: `serialized` is the log as it was taken before the log phase, as JSON."""

    exchange: Exchange
    phase: str
    plugin_name: str
    serialized: bytes | None = None


def header_value(name: str, value: Any) -> str | list[str]:
    """A header's value as Kong's PDK takes it. Raises PdkError."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:.14g}"
    if isinstance(value, str):
        # nginx drops an empty header, so Kong sends a blank
        return value or " "
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return [item or " " for item in value]
    raise PdkError(f"invalid header value for {name!r}")


def check_count(value: int, what: str) -> int:
    """Kong's limits for get_headers and get_query: 1 to 1000. Raises PdkError."""
    if value < 1:
        raise PdkError(f"{what} must be >= 1")
    if value > 1000:  # noqa: PLR2004 - Kong's limit
        raise PdkError(f"{what} must be <= 1000")
    return value
