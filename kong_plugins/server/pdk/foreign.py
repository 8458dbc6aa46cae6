"""The `kong` object as kong-pdk's own server gives it, for plugins that were written for that one.

kong-pdk takes any name and lets Kong look for it; so here a name that there is not is a method that fails.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from kong_plugins.server.errors import ConnectionLostError, PdkError, WireError
from kong_plugins.server.pdk.channel import Namespace
from kong_plugins.server.pdk.kong import Kong
from kong_plugins.server.pdk_style import PdkStyle

# Kong gives these to MsgPack clients with every value as a list
_MULTI_MAPS: Final = frozenset(
    {
        "kong.request.get_headers",
        "kong.request.get_query",
        "kong.response.get_headers",
        "kong.service.response.get_headers",
    }
)


class ForeignNamespace:
    """`kong`, or a part of it, in one of kong-pdk's styles."""

    def __init__(self, target: object, name: str, style: PdkStyle) -> None:
        self._target = target
        self._name = name
        self._style = style

    def __getattr__(self, part: str) -> Any:
        """Make what is asked for the first time; from then on it is an attribute."""
        if part.startswith("_"):
            raise AttributeError(part)
        name = f"{self._name}.{part}"
        found = getattr(self._target, part, None)
        made = (
            ForeignNamespace(found, name, self._style)
            if found is None or isinstance(found, Namespace)
            else self._method(found, name)
        )
        setattr(self, part, made)
        return made

    def __call__(self, *arguments: object) -> Any:
        """Do `kong.log(...)`, or fail as a method that there is not."""
        target = self._target if callable(self._target) else _missing(self._name)
        return self._method(target, self._name)(*arguments)

    def _method(self, method: Callable[..., Any], name: str) -> Callable[..., Any]:
        plain = _with_lists(method) if name in _MULTI_MAPS else method
        return _in_pairs(plain) if self._style is PdkStyle.LUA else plain


def kong_in_style(kong: Kong, style: PdkStyle) -> ForeignNamespace:
    return ForeignNamespace(kong, "kong", style)


def _with_lists(method: Callable[..., Mapping[str, Any]]) -> Callable[..., dict[str, list[Any]]]:
    def call(*arguments: object) -> dict[str, list[Any]]:
        values = method(*(one for one in arguments if one is not None))
        return {name: _as_list(value) for name, value in values.items()}

    return call


def _as_list(value: object) -> list[Any]:
    if isinstance(value, list):
        return value
    return [] if value is True else [value]  # an argument without `=` is true in Lua


def _in_pairs(method: Callable[..., Any]) -> Callable[..., tuple[Any, str | None]]:
    def call(*arguments: object) -> tuple[Any, str | None]:
        try:
            return method(*arguments), None
        except ConnectionLostError:
            raise  # the request is over; there is nobody to go on for
        except (PdkError, WireError) as error:
            return None, str(error)

    return call


def _missing(name: str) -> Callable[..., Any]:
    def fail(*_arguments: object) -> Any:
        raise PdkError(f"{name} is not among the methods Kong lets external plugins call over ProtoBuf")

    return fail
