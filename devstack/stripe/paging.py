"""Lists of Stripe's v1 and v2 API."""

from collections.abc import Iterable
from typing import Any

from devstack.stripe.problems import StripeProblem
from devstack.stripe.routes import Call
from devstack.stripe.state import Object

DEFAULT_LIMIT = 10
LARGEST_LIMIT = 100


def page(call: Call, objects: Iterable[Object], *, newest_first: bool = True) -> Object:
    """One page of a v1 list. `objects` oldest first and filtered already, but for `created`: that is done here."""
    found = [one for one in objects if in_range(one.get("created", 0), call.params.get("created"))]
    if newest_first:
        found.reverse()
    return window(call, found)


def window(call: Call, found: list[Object]) -> Object:
    """The part of `found`, which is in the order to show, that the cursor and the limit ask for."""
    limit = limit_of(call.params)
    after, before = call.params.get("starting_after"), call.params.get("ending_before")
    if after is not None and before is not None:
        raise StripeProblem("You cannot parametrize both starting_after and ending_before.", param="ending_before")
    if before is not None:
        end = _position(found, before, "ending_before")
        start = max(0, end - limit)
        return listing(call.url_path, found[start:end], has_more=start > 0)
    start = 0 if after is None else _position(found, after, "starting_after") + 1
    return listing(call.url_path, found[start : start + limit], has_more=len(found) > start + limit)


def listing(url: str, data: list[Object], *, has_more: bool = False) -> Object:
    """A list object, also for lists inside objects."""
    return {"object": "list", "data": data, "has_more": has_more, "url": url}


def limit_of(params: dict[str, Any]) -> int:
    limit = int(params.get("limit", DEFAULT_LIMIT))
    if not 1 <= limit <= LARGEST_LIMIT:
        raise StripeProblem(
            "This value must be between 1 and 100.", code="parameter_invalid_integer", param="limit"
        )
    return limit


def in_range(moment: int, wanted: Any) -> bool:
    """`wanted` is None, a moment, or bounds named gt, gte, lt and lte."""
    if wanted is None:
        return True
    if not isinstance(wanted, dict):
        return moment == int(wanted)
    return bool(
        moment > wanted.get("gt", -1)
        and moment >= wanted.get("gte", 0)
        and moment < wanted.get("lt", moment + 1)
        and moment <= wanted.get("lte", moment)
    )


def _position(found: list[Object], identifier: str, param: str) -> int:
    for position, one in enumerate(found):
        if one["id"] == identifier:
            return position
    raise StripeProblem(f"No such object: '{identifier}'", code="resource_missing", param=param)
