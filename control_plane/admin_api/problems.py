"""Every error answer: RFC 9457 problem+json with a stable `code`, made in this one place.

A wrong field is named in `errors`. Nothing of the input, no stack and no SQL ever stands in an answer; they are
in the log under the same `request_id`.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError
from redis.exceptions import RedisError
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from structlog.contextvars import get_contextvars

from control_plane.admin_api.history import HistoryBusyError, HistoryUnavailableError
from control_plane.admin_api.pattern_words import pattern_words
from control_plane.foundation.errors import (
    ConflictError,
    KmError,
    NotAllowedError,
    NotFoundError,
    ValidationFailedError,
)
from control_plane.foundation.errors import Problem as Wrong
from control_plane.stripe_sync.outcomes import StripeUnavailable
from control_plane.usage.requests.history import SearchTooBroadError

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 50
RETRY_AFTER = {"Retry-After": "1"}
_RETRYABLE_SQLSTATES = {"40001", "40P01", "55P03", "57014"}  # serialization, deadlock, lock or statement timeout
_STATUS: Sequence[tuple[type[KmError], int]] = (
    (NotFoundError, 404),
    (ConflictError, 409),
    (NotAllowedError, 403),
    (ValidationFailedError, 422),
    (SearchTooBroadError, 422),
    (HistoryBusyError, 503),
    (HistoryUnavailableError, 503),
    (StripeUnavailable, 503),
)
_CODES = {
    401: "unauthenticated",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "body_too_large",
    415: "unsupported_media_type",
    429: "too_many_requests",
}
_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is not a known field",
    "json_invalid": "is not valid JSON",
    "model_attributes_type": "must be a JSON object",
    "dict_type": "must be a JSON object",
    "string_unicode": "must be valid Unicode text",
}

log = structlog.stdlib.get_logger(__name__)


class FieldProblem(BaseModel):
    """One wrong field."""

    field: str = Field(description="Path of the field, like `windows[0].limit`; empty for the body as a whole.")
    message: str


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field(examples=["urn:kong-monetize:problem:validation_failed"])
    title: str = Field(description="The HTTP status in words.")
    status: int
    code: str = Field(description="Stable name of what happened, for programs.")
    detail: str = Field(description="What happened, for people.")
    errors: list[FieldProblem] = Field(default_factory=list, description="The wrong fields, if that is it.")
    request_id: str = Field(default="", description="Quote this to the operator; the log has the same.")


def problem_response(
    status: int,
    code: str,
    detail: str,
    *,
    errors: Sequence[FieldProblem] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Return the one form of error answers."""
    problem = Problem(
        type=f"urn:kong-monetize:problem:{code}",  # as in the gateway's answers
        title=HTTPStatus(status).phrase,
        status=status,
        code=code,
        detail=detail,
        errors=list(errors[:MAX_ERRORS]),
        request_id=get_contextvars().get("request_id", ""),
    )
    return JSONResponse(problem.model_dump(), status, dict(headers or {}), MEDIA_TYPE)


def internal_error() -> JSONResponse:
    """Return the answer to a failure nobody foresaw; the caller has logged it."""
    return problem_response(500, "internal_error", "Something failed on our side. It has been logged.")


def field_path(location: Sequence[int | str]) -> str:
    """Return `windows[0].limit` for ("windows", 0, "limit")."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


async def _on_km_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, KmError)  # noqa: S101 - registered for this class
    if error.detail:
        await log.ainfo("refused", code=error.code, detail=error.detail)
    if isinstance(error, ValidationFailedError):
        errors = [FieldProblem(field=problem.field, message=problem.message) for problem in error.problems]
        return problem_response(422, error.code, "The request has wrong fields.", errors=errors)
    status = next((status for family, status in _STATUS if isinstance(error, family)), 400)
    headers = RETRY_AFTER if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return problem_response(status, error.code, error.message, headers=headers)


async def _on_wrong_request(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class
    errors = [_field_problem(problem) for problem in error.errors()]
    return problem_response(422, "validation_failed", "The request has wrong fields.", errors=errors)


def validation_failure(error: ValidationError) -> ValidationFailedError:
    """Return pydantic's findings about a body as our own error."""
    fields = [_field_problem({**problem, "loc": ("body", *problem["loc"])}) for problem in error.errors()]
    first, *more = (Wrong(field.field, field.message) for field in fields)
    return ValidationFailedError(first.field, first.message, *more)


def _field_problem(problem: Mapping[str, Any]) -> FieldProblem:
    location = problem["loc"][1:]
    if problem["type"] == "json_invalid":
        location = ()
    message: str = problem["msg"]
    words = (
        _WORDS.get(problem["type"])
        or pattern_words(problem.get("ctx", {}).get("pattern", ""))
        or message.removeprefix("Value error, ").removeprefix("Input ")
    )
    words = words.replace("should ", "must ", 1)
    return FieldProblem(field=field_path(location), message=words[:1].lower() + words[1:])


async def _on_http_exception(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class
    code = _CODES.get(error.status_code, "bad_request")
    return problem_response(error.status_code, code, str(error.detail), headers=error.headers)


async def _on_database_error(_request: Request, error: Exception) -> JSONResponse:
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    if isinstance(error, IntegrityError):
        await log.awarning("conflict", sqlstate=state, exc_info=error)
        return problem_response(
            409, "conflict", "Another change came in between, or the same thing exists already."
        )
    if isinstance(error, DataError):
        await log.awarning("value_refused", sqlstate=state, exc_info=error)
        return problem_response(422, "value_refused", "A value in the request cannot be stored or compared.")
    if state in _RETRYABLE_SQLSTATES:
        await log.awarning("try_again", sqlstate=state, exc_info=error)
        return problem_response(503, "try_again", "Another change is under way. Try again.", headers=RETRY_AFTER)
    disconnected = isinstance(error, DBAPIError) and (error.connection_invalidated or state is None)
    if disconnected or isinstance(error, PoolTimeoutError):
        return await _unavailable("database", error)
    await log.aerror("database_error", sqlstate=state, exc_info=error)
    return internal_error()


async def _on_redis_error(_request: Request, error: Exception) -> JSONResponse:
    return await _unavailable("redis", error)


async def _unavailable(what: str, error: Exception) -> JSONResponse:
    await log.aerror(f"{what}_unavailable", exc_info=error)
    return problem_response(
        503, f"{what}_unavailable", f"The {what} cannot be reached. Try again.", headers=RETRY_AFTER
    )


def install(app: FastAPI) -> None:
    """Register the handlers. What none of them takes is answered by `middleware.RequestScope`."""
    app.add_exception_handler(KmError, _on_km_error)
    app.add_exception_handler(RequestValidationError, _on_wrong_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(DBAPIError, _on_database_error)
    app.add_exception_handler(PoolTimeoutError, _on_database_error)
    app.add_exception_handler(RedisError, _on_redis_error)
