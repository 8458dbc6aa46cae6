"""Refusals in Stripe's form."""

from typing import Any


class StripeProblem(Exception):  # noqa: N818 - an answer of Stripe's, not a failure of ours
    """An answer that is not 2xx. `should_retry` sets the `Stripe-Should-Retry` header; None leaves it out."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        should_retry: bool | None = None,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        """`more` are further fields of the error object, such as `decline_code` or `payment_intent`."""
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
        if should_retry is not None:
            self.headers["Stripe-Should-Retry"] = "true" if should_retry else "false"
        self.more = more

    def body(self) -> dict[str, Any]:
        error: dict[str, Any] = {"message": self.message, "type": self.kind}
        if self.code is not None:
            error["code"] = self.code
            error["doc_url"] = f"https://stripe.com/docs/error-codes/{self.code.replace('_', '-')}"
        if self.param is not None:
            error["param"] = self.param
        return {"error": {**error, **self.more}}


def no_such(kind: str, identifier: str, *, param: str | None = None) -> StripeProblem:
    """404 for an id in the path (`param` None), 400 for one in the parameters."""
    return StripeProblem(
        f"No such {kind.rpartition('.')[2]}: '{identifier}'",
        status=404 if param is None else 400,
        code="resource_missing",
        param=param or "id",
    )
