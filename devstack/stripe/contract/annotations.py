"""Reading the SDK's classes from its source, without importing it."""

import ast
import importlib.util
import itertools
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from devstack.stripe.contract.shapes import (
    Anything,
    Choice,
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
    either,
)

SIMPLE: dict[str, Shape] = {
    "str": Text(),
    "int": Whole(),
    "float": Floating(),
    "bool": Truth(),
    "Decimal": Exact(),
    "Any": Anything(),
    "None": Null(),
    "object": Anything(),
    "UntypedStripeObject": Values(Anything()),
}
NOT_FIELDS = {"OBJECT_NAME"}


class ContractError(Exception):
    """The SDK holds a type that this reader does not understand."""


@cache
def sdk_folder() -> Path:
    """Where the installed SDK is. Raises ContractError when it is not installed."""
    found = importlib.util.find_spec("stripe")
    if found is None or not found.submodule_search_locations:
        raise ContractError("the package `stripe` is not installed; install it with `pip install stripe`")
    return Path(found.submodule_search_locations[0])


@dataclass
class Module:
    """The classes of one source file and where the names in it come from."""

    name: str
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    """By dotted name, so that nested ones have their place."""
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    made: dict[str, list[tuple[str, ast.expr]]] = field(default_factory=dict)
    """`X = TypedDict("X", {"from": ...})`: for fields that are named like keywords of Python."""


@cache
def module(name: str) -> Module:
    """By its dotted name, such as `stripe.billing._meter`."""
    path = sdk_folder().joinpath(*name.split(".")[1:]).with_suffix(".py")
    read = Module(name)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    # at the top, and under `if TYPE_CHECKING:`
    branches = [node.body for node in tree.body if isinstance(node, ast.If)]
    for node in itertools.chain(tree.body, *branches):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                read.imports[alias.asname or alias.name] = (node.module, alias.name)
    _collect(read, tree.body, "")
    return read


def _collect(read: Module, body: list[ast.stmt], prefix: str) -> None:
    for node in body:
        if isinstance(node, ast.ClassDef):
            read.classes[prefix + node.name] = node
            _collect(read, node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            _collect_made(read, node.targets[0], node.value)


def _collect_made(read: Module, target: ast.expr, call: ast.Call) -> None:
    if len(call.args) < 2 or not isinstance(call.args[1], ast.Dict) or not isinstance(target, ast.Name):  # noqa: PLR2004 - name and fields
        return
    pairs = zip(call.args[1].keys, call.args[1].values, strict=True)
    read.made[target.id] = [(str(key.value), value) for key, value in pairs if isinstance(key, ast.Constant)]


@cache
def fields_of(named: Named) -> Fields:
    """The fields of a TypedDict or of a resource class, those of its bases in the same file among them."""
    read = module(named.module)
    node = read.classes[named.name]
    found: dict[str, Field] = {}
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in read.classes:
            found.update(fields_of(Named(named.module, base.id)).fields)
    is_typed_dict = ".params" in named.module
    for statement in node.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        name = statement.target.id
        if name in NOT_FIELDS:
            continue
        found[name] = _field(read, named.name, statement.annotation, is_typed_dict=is_typed_dict)
    if is_typed_dict:
        found.update(_functional_fields(read, named))
    return Fields(named.name, found)


def _functional_fields(read: Module, named: Named) -> dict[str, Field]:
    """Parameters whose names are Python's keywords stand in a TypedDict made by a call, which is then a base."""
    found: dict[str, Field] = {}
    for base in read.classes[named.name].bases:
        if isinstance(base, ast.Name) and base.id in read.made:
            for key, annotation in read.made[base.id]:
                found[key] = _field(read, named.name, annotation, is_typed_dict=True)
    return found


def _field(read: Module, scope: str, annotation: ast.expr, *, is_typed_dict: bool) -> Field:
    required = True
    if isinstance(annotation, ast.Subscript) and _name(annotation.value) in {"NotRequired", "Required"}:
        required = _name(annotation.value) == "Required"
        annotation = annotation.slice
    if isinstance(annotation, ast.Subscript) and _name(annotation.value) == "Optional" and not is_typed_dict:
        required = False
    return Field(shape_of(read, scope, annotation), required)


def shape_of(read: Module, scope: str, node: ast.expr) -> Shape:
    """The shape an annotation stands for; `scope` is the dotted name of the class it stands in."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return shape_of(read, scope, ast.parse(node.value, mode="eval").body)
        return Null()
    if isinstance(node, ast.BinOp):
        return either([shape_of(read, scope, node.left), shape_of(read, scope, node.right)])
    if isinstance(node, ast.Subscript):
        return _generic(read, scope, _name(node.value), node.slice)
    name = _name(node)
    return SIMPLE[name] if name in SIMPLE else _class(read, scope, name)


def _generic(read: Module, scope: str, name: str, inner: ast.expr) -> Shape:  # noqa: PLR0911 - a table of cases
    parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    if name == "Literal":
        return Choice(tuple(ast.literal_eval(one) for one in parts))
    inside = [shape_of(read, scope, one) for one in parts]
    match name:
        case "Optional":
            return either([*inside, Null()])
        case "Union":
            return either(inside)
        case "List":
            return Items(inside[0])
        case "Dict" | "Mapping":
            return Values(inside[1])
        case "UntypedStripeObject":
            return Values(inside[0])
        case "ExpandableField":
            return either([Text(), *inside])
        case "ListObject":
            return list_of(inside[0])
        case "NotRequired" | "Required":
            return inside[0]
        case _:
            raise ContractError(f"{read.name}: {name}[...] is not understood")


def list_of(item: Shape, *, url: bool = True) -> Fields:
    """A v1 list."""
    fields = {
        "object": Field(Choice(("list",)), required=True),
        "data": Field(Items(item), required=True),
        "has_more": Field(Truth(), required=True),
        "total_count": Field(Whole(), required=False),
    }
    return Fields("list", {**fields, "url": Field(Text(), required=url)})


def _class(read: Module, scope: str, name: str) -> Shape:
    parts = scope.split(".") if scope else []
    while True:
        dotted = ".".join([*parts, name])
        if dotted in read.classes:
            return Named(read.name, dotted)
        if not parts:
            break
        parts.pop()
    if name in read.imports:
        source, original = read.imports[name]
        return Named(source, original)
    if name in {"bytes", "IO"}:
        return Anything()
    raise ContractError(f"{read.name}: the name {name} is not understood")


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ast.unparse(node)
