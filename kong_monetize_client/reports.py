"""What `report` of both clients does before an event is kept, and how requests go out."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import httpx

from kong_monetize_client.errors import ClosedError
from kong_monetize_client.events import encode_event, new_id
from kong_monetize_client.sender import CONTENT_TYPE, PATH

_MAX_TOKEN_LENGTH = 512


class Reports:
    """Makes events: gives each an id and a time once, which stay through all retries."""

    def __init__(self, source: str) -> None:
        """`source` names what reports; raises EventError where the server would not take it."""
        self._source = source
        self._process_id = os.getpid()
        self.encode("probe", subject="probe")

    @property
    def has_forked(self) -> bool:
        """Whether this is another process than the one that made the client."""
        return os.getpid() != self._process_id

    def encode(
        self,
        event_type: str,
        *,
        subject: str,
        units: Mapping[str, int] | None = None,
        properties: Mapping[str, str] | None = None,
        product: str | None = None,
        mode: str | None = None,
        endpoint: str | None = None,
        id: str | None = None,  # noqa: A002 - the word that CloudEvents has for it
        time: datetime | None = None,
        source: str | None = None,
    ) -> tuple[str, bytes]:
        """Return the event's id and its line.

        Raises:
            EventError: the server would not take it.
            ClosedError: the process has forked since; only one of the two may have the buffer.
        """
        if self.has_forked:
            raise ClosedError("make the client after the process has forked")
        now = datetime.now(UTC)
        event_id = new_id(now) if id is None else id
        line = encode_event(
            event_type,
            event_id=event_id,
            source=self._source if source is None else source,
            subject=subject,
            time=now if time is None else time,
            timed_by_client=time is None,
            units=units,
            properties=properties,
            product=product,
            mode=mode,
            endpoint=endpoint,
        )
        return event_id, line


def endpoint_of(url: str) -> str:
    """Return where events go; raises ValueError where the address is none."""
    try:
        address = httpx.URL(url.rstrip("/") + PATH)
    except httpx.InvalidURL as error:
        raise ValueError(f"the server's address is none: {error}") from error
    if address.scheme not in {"http", "https"} or not address.host:
        raise ValueError("the server's address must begin with http:// or https:// and a host")
    return str(address)


def headers_of(token: str) -> dict[str, str]:
    """Return the headers of every request; raises ValueError where the text can be no token (it is not shown)."""
    if not (0 < len(token) <= _MAX_TOKEN_LENGTH and token.isascii() and token.isprintable() and " " not in token):
        raise ValueError("the token must be one, like kmt_ and 43 characters")
    try:
        release = version("kong-monetize")
    except PackageNotFoundError:
        release = "0"
    return {
        "Authorization": f"Bearer {token}",
        "Content-Type": CONTENT_TYPE,
        "Content-Encoding": "gzip",
        "Accept": "application/json, application/problem+json",
        "User-Agent": f"kong-monetize-client/{release}",
    }
