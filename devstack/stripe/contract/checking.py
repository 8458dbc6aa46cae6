"""Requests and answers held against the contract."""

import re
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any

from devstack.stripe.contract.annotations import fields_of, list_of
from devstack.stripe.contract.events import THIN as THIN_EVENT
from devstack.stripe.contract.events import thin_problem
from devstack.stripe.contract.misfits import misfit
from devstack.stripe.contract.services import Operation, operations
from devstack.stripe.contract.shapes import (
    Anything,
    Choice,
    Either,
    Exact,
    Field,
    Fields,
    Floating,
    Items,
    Named,
    Null,
    Shape,
    Text,
    Truth,
    Values,
    Whole,
)
from devstack.stripe.problems import StripeProblem

ADDRESS = {"city", "country", "line1", "line2", "postal_code", "state"}
UNKNOWN_ID = re.compile(r"\{\w+\}")


class Contract:
    """The operations of the installed SDK; each is read when it is first used."""

    def operation(self, method: str, template: str) -> Operation | None:
        return _by_anonymous_path().get((method, UNKNOWN_ID.sub("{}", template)))

    def params(self, method: str, template: str, raw: dict[str, Any]) -> dict[str, Any]:
        """Checked and coerced. Raises StripeProblem as Stripe would, ContractError for an unknown operation."""
        known = self.operation(method, template)
        if known is None:
            raise LookupError(f"the SDK has no operation {method} {template}")
        fields = dict(fields_of(Named(known.params.module, known.params.name)).fields) if known.params else {}
        if template.startswith("/v1/"):
            fields.setdefault("expand", Field(Items(Text()), required=False))
        elif method == "GET":
            fields.setdefault("page", Field(Text(), required=False))
        is_json = template.startswith("/v2/") and method != "GET"
        return dict(_Coercion(is_json).fields(Fields("params", fields), raw, ""))

    def answer_problem(self, method: str, template: str, answer: Any) -> str:
        """What does not fit, or an empty string."""
        known = self.operation(method, template)
        if known is None or known.answer is None:
            return ""
        one = Named(known.answer.module, known.answer.name)
        if one == THIN_EVENT:
            events = [answer] if known.container == "one" else answer["data"]
            return next((problem for event in events if (problem := thin_problem(event))), "")
        if known.container == "one":
            return _deleted_problem(answer) if _is_deleted(answer) else misfit(one, answer)
        if template.startswith("/v2/"):
            return misfit(_v2_list(one), answer)
        if known.container == "search":
            return misfit(_search(one), answer)
        return misfit(list_of(one), answer)


@cache
def _by_anonymous_path() -> dict[tuple[str, str], Operation]:
    return {(method, UNKNOWN_ID.sub("{}", path)): one for (method, path), one in operations().items()}


def _is_deleted(answer: Any) -> bool:
    return isinstance(answer, dict) and answer.get("deleted") is True


def _deleted_problem(answer: dict[str, Any]) -> str:
    return (
        ""
        if set(answer) - {"discount"} == {"id", "object", "deleted"}
        else "a deleted object shows more than it has"
    )


def _v2_list(one: Shape) -> Fields:
    url = Field(Either((Text(), Null())), required=True)
    return Fields("list", {"data": Field(Items(one), True), "next_page_url": url, "previous_page_url": url})


def _search(one: Shape) -> Fields:
    base = dict(list_of(one).fields)
    base["object"] = Field(Choice(("search_result",)), required=True)
    base["next_page"] = Field(Either((Text(), Null())), required=False)
    return Fields("search", base)


class _Coercion:
    """Turns what came in a form or as JSON into values, refusing as Stripe does."""

    def __init__(self, is_json: bool) -> None:  # noqa: FBT001 - the one thing there is to say
        self._is_json = is_json

    def fields(self, shape: Fields, raw: Any, where: str) -> dict[str, Any]:
        if not isinstance(raw, dict):
            raise StripeProblem("Invalid object", param=where)
        for name in raw:
            if name not in shape.fields:
                param = _below(where, name)
                raise StripeProblem(f"Received unknown parameter: {param}", code="parameter_unknown", param=param)
        taken: dict[str, Any] = {}
        for name, one in shape.fields.items():
            param = _below(where, name)
            if name in raw and raw[name] == "" and shape.fields.keys() == ADDRESS:
                # Stripe keeps empty lines of addresses, though it takes no other empty string
                taken[name] = ""
            elif name in raw:
                taken[name] = self.value(one.shape, raw[name], param)
            elif one.required:
                raise StripeProblem(f"Missing required param: {param}.", code="parameter_missing", param=param)
        return taken

    def value(self, shape: Shape, raw: Any, where: str) -> Any:  # noqa: PLR0911 - a table of cases
        match shape:
            case Named():
                return self.fields(fields_of(shape), raw, where)
            case Fields():
                return self.fields(shape, raw, where)
            case Either(options):
                return self._either(options, raw, where)
            case Items(of):
                return self._items(of, raw, where)
            case Values(of):
                return self._values(of, raw, where)
            case Anything():
                return raw
            case _:
                return self._plain(shape, raw, where)

    def _items(self, of: Shape, raw: Any, where: str) -> list[Any]:
        if not isinstance(raw, list):
            raise StripeProblem("Invalid array", param=where)
        return [self.value(of, one, f"{where}[{position}]") for position, one in enumerate(raw)]

    def _values(self, of: Shape, raw: Any, where: str) -> dict[str, Any]:
        if isinstance(raw, list):
            # keys that count from 0 look like a list in a form
            raw = {str(position): one for position, one in enumerate(raw)}
        if not isinstance(raw, dict):
            raise StripeProblem("Invalid object", param=where)
        if isinstance(of, Text):
            for name, one in raw.items():
                if not isinstance(one, str):
                    raise StripeProblem("Invalid string", param=_below(where, name))
            return dict(raw)
        return {name: self.value(of, one, _below(where, name)) for name, one in raw.items()}

    def _either(self, options: tuple[Shape, ...], raw: Any, where: str) -> Any:
        fitting = [one for one in options if _may_be(one, raw)] or list(options)
        problem: StripeProblem | None = None
        for one in fitting:
            try:
                return self.value(one, raw, where)
            except StripeProblem as refused:
                problem = problem if problem and isinstance(one, Null) else refused
        raise problem or StripeProblem("Invalid value", param=where)

    def _plain(self, shape: Shape, raw: Any, where: str) -> Any:
        if raw is None:
            if isinstance(shape, Null) and self._is_json:
                return None
            raise StripeProblem("Invalid null value", param=where)
        if isinstance(raw, dict | list):
            raise StripeProblem(
                f"Invalid string: {raw}" if isinstance(shape, Text) else "Invalid value", param=where
            )
        if self._is_json and not isinstance(raw, str):
            return _json_plain(shape, raw, where)
        return _form_plain(shape, str(raw), where)


def _may_be(shape: Shape, raw: Any) -> bool:
    """Worth trying: maps to maps, lists to lists, the rest to the rest."""
    if isinstance(raw, dict):
        return isinstance(shape, Named | Fields | Values | Anything)
    if isinstance(raw, list):
        return isinstance(shape, Items | Anything)
    return not isinstance(shape, Named | Fields | Values | Items)


def _json_plain(shape: Shape, raw: Any, where: str) -> Any:
    if isinstance(shape, Truth) and isinstance(raw, bool):
        return raw
    is_number = isinstance(raw, int | float) and not isinstance(raw, bool)
    if isinstance(shape, Whole) and is_number and int(raw) == raw:
        return int(raw)
    if isinstance(shape, Floating) and is_number:
        return float(raw)
    if isinstance(shape, Choice) and raw in shape.values:
        return raw
    raise StripeProblem(f"Invalid value: {raw!r}", code="parameter_invalid", param=where)


def _form_plain(shape: Shape, raw: str, where: str) -> Any:
    match shape:
        case Choice(values):
            return _choice(values, raw, where)
        case Text():
            if raw == "":
                raise StripeProblem(
                    f"You passed an empty string for '{where}'. We assume empty values are an attempt to unset a "
                    f"parameter; however '{where}' cannot be unset.",
                    code="parameter_invalid_empty",
                    param=where,
                )
            return raw
        case Whole():
            if not re.fullmatch(r"-?\d{1,18}", raw):
                raise StripeProblem(f"Invalid integer: {raw}", code="parameter_invalid_integer", param=where)
            return int(raw)
        case Truth():
            if raw not in {"true", "false"}:
                raise StripeProblem(f"Invalid boolean: {raw}", param=where)
            return raw == "true"
        case Exact():
            return _decimal(raw, where)
        case Floating():
            return float(_decimal(raw, where))
        case _:
            raise StripeProblem(f"Invalid value: {raw}", param=where)


def _choice(values: tuple[Any, ...], raw: str, where: str) -> Any:
    for one in values:
        if raw == (str(one).lower() if isinstance(one, bool) else str(one)):
            return one
    names = [str(one) for one in values if one != ""]
    listed = ", ".join(names[:-1]) + (" or " if len(names) > 1 else "") + "".join(names[-1:])
    raise StripeProblem(f"Invalid {where}: must be one of {listed}", param=where)


def _decimal(raw: str, where: str) -> Decimal:
    try:
        number = Decimal(raw)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise StripeProblem(f"Invalid decimal: {raw}", code="parameter_invalid_decimal", param=where)
    return number


def _below(where: str, name: str) -> str:
    return f"{where}[{name}]" if where else name
