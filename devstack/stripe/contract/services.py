"""The operations the SDK knows: method and path, with the types of what goes in and comes out."""

import re
from dataclasses import dataclass
from functools import cache

from devstack.stripe.contract.annotations import sdk_folder

METHOD = re.compile(r"^    def (\w+)\(", re.MULTILINE)
PARAMS = re.compile(r'\bparams: (?:Optional\[\s*)?"(\w+)"')
ANSWER = re.compile(r"\) -> (None|[^:]+):\n")
REQUEST = re.compile(r'self\._request(?:_stream)?\(\s*"(\w+)",\s*"([^"]+)"')
IMPORT = re.compile(r"from (stripe[\w.]*) import (?:\(([^)]*)\)|(.*))")


@dataclass(frozen=True)
class Typed:
    """A class by the module it comes from."""

    module: str
    name: str


@dataclass(frozen=True)
class Operation:
    method: str
    template: str
    params: Typed | None
    answer: Typed | None
    """None: the body of the answer is of no interest."""
    container: str
    """`one`, `list` or `search`."""


@cache
def operations() -> dict[tuple[str, str], Operation]:
    """By method in capitals and path with its ids named as the SDK names them."""
    found: dict[tuple[str, str], Operation] = {}
    root = sdk_folder()
    for path in sorted(root.rglob("*_service.py")):
        for one in _read(path.read_text(encoding="utf-8")):
            found[one.method, one.template] = one
    return found


def _read(source: str) -> list[Operation]:
    imports = _imports(source)
    pieces = METHOD.split(source)
    found = []
    for body in pieces[2::2]:
        request = REQUEST.search(body)
        if request is None:
            continue
        params, answer = PARAMS.search(body), ANSWER.search(body)
        found.append(
            Operation(
                method=request[1].upper(),
                template=request[2],
                params=_typed(imports, params[1]) if params else None,
                answer=_answer(imports, answer[1] if answer else ""),
                container=_container(answer[1] if answer else ""),
            )
        )
    return found


def _imports(source: str) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for module, many, one in IMPORT.findall(source):
        for part in (many or one).split(","):
            original, _, alias = part.strip().partition(" as ")
            if original:
                found[alias or original] = (module, original)
    return found


def _typed(imports: dict[str, tuple[str, str]], name: str) -> Typed | None:
    return Typed(*imports[name]) if name in imports else None


def _answer(imports: dict[str, tuple[str, str]], written: str) -> Typed | None:
    # `ListObject["Price"]` and `"ListObject[Price]"` are both written; of a union the first counts
    names = [
        name for name in re.findall(r"\w+", written) if not name.endswith(("ListObject", "SearchResultObject"))
    ]
    return next((typed for name in names if (typed := _typed(imports, name))), None)


def _container(written: str) -> str:
    if "ListObject" in written:
        return "list"
    return "search" if "SearchResultObject" in written else "one"
