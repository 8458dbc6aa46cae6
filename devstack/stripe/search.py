"""Stripe's search language, as far as it is used: `field:"value"`, `metadata["key"]:"value"`, AND or OR."""

import re
from collections.abc import Iterable

from devstack.stripe.paging import limit_of
from devstack.stripe.problems import StripeProblem
from devstack.stripe.routes import Call
from devstack.stripe.state import Object

CLAUSE = re.compile(
    r"""\s*(?P<no>-)?(?P<field>\w+)(\[["'](?P<key>[^"']*)["']\])?"""
    r"""\s*(?P<sign>:|~|>=|<=|>|<)\s*("(?P<text>[^"]*)"|'(?P<other>[^']*)'|(?P<bare>[\w.]+))\s*"""
)


def search(call: Call, objects: Iterable[Object]) -> Object:
    """A page of a search result, newest first. Unlike at Stripe, what was just written is found at once."""
    clauses, any_of = _parse(call.params["query"])
    judge = any if any_of else all
    found = [one for one in objects if judge(_holds(one, clause) for clause in clauses)]
    found.reverse()
    limit = limit_of(call.params)
    start = int(call.params.get("page", "0"))
    rest = len(found) > start + limit
    return {
        "object": "search_result",
        "data": found[start : start + limit],
        "has_more": rest,
        "next_page": str(start + limit) if rest else None,
        "url": call.url_path,
    }


def _parse(query: str) -> tuple[list[re.Match[str]], bool]:
    clauses: list[re.Match[str]] = []
    joints: set[str] = set()
    position = 0
    while position < len(query):
        found = CLAUSE.match(query, position)
        if found is None:
            raise StripeProblem(f"We were unable to parse your search query: {query}", param="query")
        clauses.append(found)
        position = found.end()
        if joint := re.compile(r"(AND|OR)\b", re.IGNORECASE).match(query, position):
            joints.add(joint[1].upper())
            position = joint.end()
    if len(joints) > 1:
        raise StripeProblem("You can't combine AND and OR in the same query.", param="query")
    return clauses, joints == {"OR"}


def _holds(one: Object, clause: re.Match[str]) -> bool:
    value = one.get(clause["field"])
    if clause["key"] is not None:
        value = (value or {}).get(clause["key"])
    wanted = next(text for text in (clause["text"], clause["other"], clause["bare"]) if text is not None)
    return _compare(value, clause["sign"], wanted) != (clause["no"] is not None)


def _compare(value: object, sign: str, wanted: str) -> bool:
    if wanted == "null":
        return value is None
    if value is None:
        return False
    if sign in {":", "~"}:
        shown = str(value).lower()
        return shown == wanted.lower() if sign == ":" else wanted.lower() in shown
    left, right = float(str(value)), float(wanted)
    return {">": left > right, "<": left < right, ">=": left >= right, "<=": left <= right}[sign]
