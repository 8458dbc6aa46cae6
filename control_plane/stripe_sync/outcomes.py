"""What may come of a call to Stripe: its answer, a refusal that stands, or nothing that one could go by.

Whatever Stripe says is cut to a length and stripped of anything that looks like a key before it goes anywhere.
"""

import re
from typing import Final

import stripe as sdk

from control_plane.foundation.errors import ConflictError, KmError

MAX_SENTENCE: Final = 400
_SECRET = re.compile(r"\b(?:(?:sk|rk|ek)_(?:live|test)_|whsec_)[\w*]+|\b(?:pi|seti|cs)_\w+_secret_\w+")
_UNAUTHORISED, _FORBIDDEN, _CONFLICT, _BUSY, _FAILED = 401, 403, 409, 429, 500
# codes of Stripe's for what is over in a moment
_PASSING = frozenset({"idempotency_key_in_use", "lock_timeout", "rate_limit"})


class StripeOffError(ConflictError):
    """This installation has no key of Stripe's."""

    def __init__(self) -> None:
        super().__init__("stripe_off", "Stripe is off: set KM_STRIPE_KEY and start again.")


class StripeRefused(ConflictError):  # noqa: N818 - an outcome, named as such
    """Stripe has answered no and would again: the request is wrong, or what it names is not as it should be.

    `stripe_code` is Stripe's code ('' where it gave none), `param` the parameter at fault, if it names one.
    """

    def __init__(self, stripe_code: str, param: str | None, sentence: str, *, status: int = 400) -> None:
        at = f" ({param})" if param else ""
        super().__init__("stripe_refused", f"Stripe refused: {sentence}{at}")
        self.stripe_code = stripe_code
        self.param = param
        self.sentence = sentence
        self.status = status

    @property
    def is_missing(self) -> bool:
        """Say whether Stripe knows no such object."""
        return self.stripe_code == "resource_missing" or self.status == 404  # noqa: PLR2004 - HTTP


class StripeUnavailable(KmError):  # noqa: N818 - an outcome, named as such
    """Try again later; nobody knows whether it happened.

    `spent_key`: Stripe keeps a failure as the answer to the idempotency key for a day, so what asks again should
    look whether it happened and take another key. False where no answer came or Stripe said to come back: the
    same key is right then.
    """

    def __init__(self, sentence: str, *, spent_key: bool = False, code: str = "stripe_unavailable") -> None:
        super().__init__(code, sentence)
        self.sentence = sentence
        self.spent_key = spent_key


class StripeKeyRefused(StripeUnavailable):
    """Stripe does not take our key, or the key may not do this. Nothing happened; mend the key and try again.

    `is_unknown`: Stripe knows no such key.
    """

    def __init__(self, sentence: str, *, is_unknown: bool = False) -> None:
        super().__init__(sentence, code="stripe_key_refused")
        self.is_unknown = is_unknown


def outcome_of(error: sdk.StripeError) -> StripeRefused | StripeUnavailable:
    """Return what an error of the SDK's means for whoever asked."""
    status, code, param = error.http_status, _field(error, "code") or "", _field(error, "param")
    if isinstance(error, sdk.AuthenticationError) or status == _UNAUTHORISED:
        sentence = "Stripe does not know the key in KM_STRIPE_KEY. Is it complete, and not revoked?"
        return StripeKeyRefused(sentence, is_unknown=True)
    if isinstance(error, sdk.PermissionError) or status == _FORBIDDEN:
        return StripeKeyRefused(f"The key in KM_STRIPE_KEY may not do this: {public_sentence(error)}")
    if status is None or isinstance(error, sdk.APIConnectionError):
        return StripeUnavailable("Stripe cannot be reached, or did not answer in time.")
    if status >= _FAILED:
        return StripeUnavailable(f"Stripe failed ({status}).", spent_key=True)
    if status in (_CONFLICT, _BUSY) or code in _PASSING:
        return StripeUnavailable("Stripe is busy and asks to come back later.")
    if isinstance(error, sdk.IdempotencyError) and not code:
        code = "idempotency_error"
    return StripeRefused(code, param, public_sentence(error), status=status)


def _field(error: sdk.StripeError, name: str) -> str | None:
    """Return a field of the answer; the SDK's own attributes hold it for some kinds of errors only."""
    body = error.json_body
    found = body.get("error") if isinstance(body, dict) else None
    value = found.get(name) if isinstance(found, dict) else None
    return value if isinstance(value, str) else None


def public_sentence(error: sdk.StripeError) -> str:
    """Return what Stripe said, without anything secret in it."""
    said = " ".join((error.user_message or "it gave no reason").split())
    return _SECRET.sub("(hidden)", said)[:MAX_SENTENCE]
