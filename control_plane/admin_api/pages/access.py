"""Who may open a page: HTTP Basic, where the password is an API token of a role that reads."""

from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from starlette.exceptions import HTTPException

from control_plane.accounts.model import Role
from control_plane.accounts.tokens import authenticate_token
from control_plane.admin_api.access import RoleNotAllowedError
from control_plane.admin_api.services import Given, Now

REALM = "kong-monetize: any name, an API token as the password"
_basic = HTTPBasic(auto_error=False, realm=REALM)


class TokenWantedError(HTTPException):
    """No token as the password, or not one that counts."""

    def __init__(self) -> None:
        super().__init__(401, "Give an API token as the password.", {"WWW-Authenticate": f'Basic realm="{REALM}"'})


async def _reader(
    services: Given, now: Now, credentials: Annotated[HTTPBasicCredentials | None, Depends(_basic)]
) -> Role:
    if credentials is None:
        raise TokenWantedError
    async with services.sessions() as session, session.begin():
        token = await authenticate_token(session, credentials.password, now)
    if token is None:
        raise TokenWantedError
    if token.role == Role.INGEST:
        raise RoleNotAllowedError(Role.INGEST)
    return Role(token.role)


Reader = Annotated[Role, Depends(_reader)]
