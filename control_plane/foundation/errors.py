"""The family of errors that the control plane raises on purpose.

Features derive theirs from these, beside the code that raises them. An HTTP status is chosen at the edge, by
family; `code` is stable and meant for programs, the message is a public sentence, `detail` stays in our logs.
"""

from collections.abc import Collection
from dataclasses import dataclass


class KmError(Exception):
    """Something the caller can be told about."""

    def __init__(self, code: str, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = detail


class NotFoundError(KmError):
    """There is no such thing; code `<kind>_not_found`."""

    def __init__(self, kind: str, identifier: str) -> None:
        super().__init__(f"{kind}_not_found", f"There is no {_in_words(kind)} {identifier}.")
        self.kind = kind
        self.identifier = identifier


def _in_words(kind: str) -> str:
    return kind.replace("_", " ").replace("api ", "API ")


class ConflictError(KmError):
    """What is there already forbids it."""


class NotAllowedError(KmError):
    """A rule forbids it, whatever the state."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One wrong field: its path (`plans[2].limits[0].per`) and what must be true of it."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class ValidationFailedError(KmError):
    """What came in is wrong; `field` and `problem` tell the first, `problems` all of them."""

    def __init__(self, field: str, message: str, *more: Problem) -> None:
        self.problems = (Problem(field, message), *more)
        super().__init__("validation_failed", "\n".join(str(problem) for problem in self.problems))
        self.field = field
        self.problem = message


def refuse(problems: Collection[Problem]) -> None:
    """Raise ValidationFailedError with all the problems, if there are any."""
    if problems:
        first, *more = problems
        raise ValidationFailedError(first.field, first.message, *more)
