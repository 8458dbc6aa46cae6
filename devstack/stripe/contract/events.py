"""Events held against the contract: snapshots with the object in them, and the thin form with its data."""

import re
from functools import cache
from typing import Any

from devstack.stripe.contract.annotations import fields_of, module, sdk_folder
from devstack.stripe.contract.misfits import misfit
from devstack.stripe.contract.shapes import Choice, Fields, Named

SNAPSHOT = Named("stripe._event", "Event")
THIN = Named("stripe.v2.core._event", "Event")
CLASS_OF_OBJECT = re.compile(r'"([\w.]+)": \(\s*"([\w.]+)",\s*"(\w+)",?\s*\)')


@cache
def resource_classes() -> dict[str, Named]:
    """The class of every `object` name of v1."""
    source = (sdk_folder() / "_object_classes.py").read_text(encoding="utf-8").partition("V2_OBJECT_CLASSES")[0]
    return {name: Named(where, what) for name, where, what in CLASS_OF_OBJECT.findall(source)}


def event_problem(event: dict[str, Any]) -> str:
    """What does not fit in a rendered event of either form; empty when all fits."""
    if event["object"] == "v2.core.event":
        return thin_problem(event)
    if problem := misfit(SNAPSHOT, event):
        return problem
    shown = event["data"]["object"]
    named = resource_classes().get(shown.get("object"))
    return "" if named is None else misfit(named, shown, f"{event['type']}: data.object")


def thin_problem(event: dict[str, Any]) -> str:
    """By the class of its own type, which knows `data` and `related_object`."""
    known = fields_of(THIN)
    own = _class_of(str(event["type"]))
    if own is None:
        return f"{event['type']}: the SDK has no thin event of this type"
    together = Fields(own.name, {**known.fields, **fields_of(own).fields})
    return misfit(together, event, str(event["type"]))


@cache
def _class_of(kind: str) -> Named | None:
    name = f"stripe.events._{re.sub(r'[^a-z0-9]+', '_', kind)}_event"
    if not sdk_folder().joinpath(*name.split(".")[1:]).with_suffix(".py").exists():
        return None
    for dotted, node in module(name).classes.items():
        if node.bases and getattr(node.bases[0], "id", "") == "Event":
            return Named(name, dotted)
    return None


def known_types() -> tuple[str, ...]:
    """Of snapshot events."""
    shape = fields_of(SNAPSHOT).fields["type"].shape
    return shape.values if isinstance(shape, Choice) else ()
