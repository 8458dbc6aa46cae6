"""Who calls, and what their role allows. Closed: a route that asks for nothing needs a token and, to change
anything, the role `owner` or `admin`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from control_plane.accounts.model import Role
from control_plane.accounts.tokens import authenticate_token
from control_plane.admin_api.services import Given, Now
from control_plane.foundation.errors import NotAllowedError

Endpoint = TypeVar("Endpoint", bound=Callable[..., object])
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_CHANGING_ROLES = frozenset({Role.OWNER, Role.ADMIN})
_READING_ENDPOINTS: set[Callable[..., object]] = set()
_MORE_ROLES: dict[Callable[..., object], frozenset[Role]] = {}
_bearer = HTTPBearer(auto_error=False, description="An API token: `kmt_` and 43 characters.")


class UnauthenticatedError(HTTPException):
    """No token, or not one that counts; which of the two is told to nobody."""

    def __init__(self) -> None:
        super().__init__(
            401, "Send a valid API token: Authorization: Bearer kmt_…", {"WWW-Authenticate": "Bearer"}
        )


class RoleNotAllowedError(NotAllowedError):
    """The token's role may not do this."""

    def __init__(self, role: Role) -> None:
        super().__init__("role_not_allowed", f"A token with the role {role} may not do this.")


@dataclass(frozen=True, slots=True)
class Caller:
    """The holder of the request's token; `actor` is what the audit log names."""

    token_id: str
    role: Role

    @property
    def actor(self) -> str:
        return f"token:{self.token_id}"


def reads_only(endpoint: Endpoint) -> Endpoint:
    """Mark a POST that changes nothing: every role may call it."""
    _READING_ENDPOINTS.add(endpoint)
    return endpoint


def allows(*roles: Role) -> Callable[[Endpoint], Endpoint]:
    """Mark a route that changes something: these roles may call it beside `owner` and `admin`."""

    def mark(endpoint: Endpoint) -> Endpoint:
        _MORE_ROLES[endpoint] = frozenset(roles)
        return endpoint

    return mark


async def token_holder(
    services: Given,
    now: Now,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
) -> Caller:
    """Return the caller, whatever their role allows.

    Raises:
        UnauthenticatedError: no token, unknown, expired or revoked.
    """
    if credentials is None:
        raise UnauthenticatedError
    # a transaction of its own: noting the use locks the token's row, and what follows may take minutes
    async with services.sessions() as session, session.begin():
        token = await authenticate_token(session, credentials.credentials, now)
    if token is None:
        raise UnauthenticatedError
    return Caller(token_id=token.id, role=Role(token.role))


async def authenticated(request: Request, caller: Annotated[Caller, Depends(token_holder)]) -> Caller:
    """Return the caller.

    Raises:
        UnauthenticatedError: no token, unknown, expired or revoked.
        RoleNotAllowedError: the role may not change things and the method would, or may only report events.
    """
    reads_only = request.method in _READING or request.scope.get("endpoint") in _READING_ENDPOINTS
    may_change = _CHANGING_ROLES | _MORE_ROLES.get(request.scope.get("endpoint", authenticated), frozenset())
    if caller.role is Role.INGEST or (not reads_only and caller.role not in may_change):
        raise RoleNotAllowedError(caller.role)
    return caller


Authenticated = Annotated[Caller, Depends(authenticated)]


def _owner(caller: Authenticated) -> Caller:
    if caller.role is not Role.OWNER:
        raise RoleNotAllowedError(caller.role)
    return caller


Owner = Annotated[Caller, Depends(_owner)]


def _reporter(caller: Annotated[Caller, Depends(token_holder)]) -> Caller:
    if caller.role not in _REPORTING_ROLES:
        raise RoleNotAllowedError(caller.role)
    return caller


_REPORTING_ROLES = _CHANGING_ROLES | {Role.INGEST}
Reporter = Annotated[Caller, Depends(_reporter)]


# who called what from which address is no figure: finance needs sums, and the evidence of disputes
READERS_OF_REQUESTS = frozenset({Role.OWNER, Role.ADMIN, Role.SUPPORT, Role.READ_ONLY})


def reader_of_requests(caller: Authenticated) -> None:
    """Raise RoleNotAllowedError where the role may not read requests one by one."""
    if caller.role not in READERS_OF_REQUESTS:
        raise RoleNotAllowedError(caller.role)
