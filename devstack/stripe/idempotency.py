"""Idempotency keys: the first answer again, whatever it was, for a day."""

import hashlib
from dataclasses import dataclass

from devstack.stripe.problems import StripeProblem
from devstack.stripe.requests import Answer, Request

KEPT_SECONDS = 86_400
LONGEST_KEY = 255


@dataclass
class Kept:
    fingerprint: str
    at: int
    answer: Answer | None = None
    """None while the first call is being worked on."""


class IdempotencyKeys:
    """Keys by name, in the simulator's time."""

    def __init__(self) -> None:
        self._kept: dict[str, Kept] = {}

    def replay(self, request: Request, *, now: int) -> Answer | None:
        """The first answer for this key; None when it is new (or older than a day), which then begins to be kept.

        Raises StripeProblem for other parameters under the same key, and for a call that is not finished.
        """
        key = self._key_of(request)
        if key is None:
            return None
        kept = self._kept.get(key)
        if kept is None or now - kept.at >= KEPT_SECONDS:
            self._kept[key] = Kept(_fingerprint(request), now)
            return None
        if kept.fingerprint != _fingerprint(request):
            raise StripeProblem(
                "Keys for idempotent requests can only be used with the same parameters they were first used "
                f"with. Try using a key other than '{key}' if you meant to execute a different request.",
                kind="idempotency_error",
            )
        if kept.answer is None:
            raise StripeProblem(
                f"There is currently another in-progress request using this Idempotent Key: {key}",
                status=409,
                code="idempotency_key_in_use",
            )
        headers = {**kept.answer.headers, "Idempotent-Replayed": "true"}
        headers["Original-Request"] = headers.get("Request-Id", "")
        return Answer(kept.answer.status, kept.answer.body, headers)

    def keep(self, request: Request, answer: Answer) -> None:
        """What was answered, 5xx too. What never began to be carried out is forgotten, as with Stripe."""
        key = self._key_of(request)
        if key is None:
            return
        if answer.began:
            self._kept[key].answer = answer
        else:
            self.forget(request)

    def forget(self, request: Request) -> None:
        key = self._key_of(request)
        if key is not None:
            self._kept.pop(key, None)

    def _key_of(self, request: Request) -> str | None:
        # GET is idempotent by itself; Stripe ignores keys of it, and v2 has them for POST and DELETE
        if request.method == "GET" or (request.method == "DELETE" and request.path.startswith("/v1/")):
            return None
        key = request.headers.get("idempotency-key")
        if key is not None and len(key) > LONGEST_KEY:
            raise StripeProblem(f"Idempotency keys may be at most {LONGEST_KEY} characters long.")
        return key


def _fingerprint(request: Request) -> str:
    asked = f"{request.method}\n{request.path}\n{request.query}".encode()
    return hashlib.sha256(asked + b"\n" + request.body).hexdigest()
