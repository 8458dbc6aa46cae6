"""What the simulated account holds: objects by kind and id, in the order they were made."""

import random
import string
import time
from collections.abc import Iterator
from typing import Any

from devstack.stripe.problems import no_such

Object = dict[str, Any]
ALPHABET = string.ascii_letters + string.digits


class State:
    """Objects in Stripe's own form. They are changed in place; what leaves the simulator is copied."""

    def __init__(self, seed: int = 0) -> None:
        self._kinds: dict[str, dict[str, Object]] = {}
        self._former: dict[tuple[str, str], Object] = {}
        self._order: dict[tuple[str, str], int] = {}
        self._last_number = 0
        self.born = int(time.time())
        self._random = random.Random(seed)  # noqa: S311 - ids that tests can repeat, not secrets

    @property
    def last_number(self) -> int:
        """Grows with every id that is given: with each request, and with each event."""
        return self._last_number

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number

    def new_id(self, prefix: str, length: int = 14) -> str:
        """Such as `cus_...`; never given twice."""
        return f"{prefix}_{self.new_token(length)}"

    def new_token(self, length: int) -> str:
        """Ends in a running number in base 62, so that it is unique."""
        number, digits = self._next_number(), ""
        while number:
            number, digit = divmod(number, len(ALPHABET))
            digits = ALPHABET[digit] + digits
        return "".join(self._random.choices(ALPHABET, k=length - 4)) + digits.rjust(4, "0")

    def add(self, made: Object) -> Object:
        """Under its `object` name and `id`. Raises ValueError when that id is taken."""
        kind = self._kinds.setdefault(made["object"], {})
        if made["id"] in kind:
            raise ValueError(f"{made['object']} {made['id']} exists already")
        kind[made["id"]] = made
        self._order[made["object"], made["id"]] = self._next_number()
        return made

    def find(self, kind: str, identifier: str) -> Object | None:
        return self._kinds.get(kind, {}).get(identifier)

    def get(self, kind: str, identifier: str, *, param: str | None = None) -> Object:
        """Raises Stripe's refusal: 404 for an id of the path, 400 with `param` for one of the parameters."""
        found = self.find(kind, identifier)
        if found is None:
            raise no_such(kind, identifier, param=param)
        return found

    def lookup(self, identifier: str, kind: str) -> Object | None:
        """An object by an id whose kind is only guessed (ids that callers choose may be of several).

        One that was removed is given as Stripe shows it: deleted.
        """
        found = self.find(kind, identifier) or next(
            (kept[identifier] for kept in self._kinds.values() if identifier in kept), None
        )
        if found is not None:
            return found
        gone = next((kind for kind, name in self._former if name == identifier), None)
        return None if gone is None else deleted(gone, identifier)

    def all(self, kind: str) -> list[Object]:
        """Oldest first."""
        return list(self._kinds.get(kind, {}).values())

    def where(self, kind: str, **equal: Any) -> list[Object]:
        """Those whose fields have these values, oldest first."""
        return [one for one in self.all(kind) if all(one.get(name) == value for name, value in equal.items())]

    def remove(self, kind: str, identifier: str) -> None:
        gone = self._kinds.get(kind, {}).pop(identifier, None)
        if gone is not None:
            self._former[kind, identifier] = gone

    def former(self, kind: str, identifier: str) -> Object | None:
        """One that was removed, as it was last."""
        return self._former.get((kind, identifier))

    def order_of(self, one: Object) -> int:
        """When it was made, as a number that only grows."""
        return self._order.get((one["object"], one["id"]), 0)

    def kinds(self) -> Iterator[tuple[str, list[Object]]]:
        for kind in sorted(self._kinds):
            yield kind, self.all(kind)


def deleted(kind: str, identifier: str) -> Object:
    """What Stripe shows of an object that was deleted."""
    return {"id": identifier, "object": kind, "deleted": True}
