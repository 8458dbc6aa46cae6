"""Requests to addresses that people have typed in: never into our own network, unless that is allowed.

The name is resolved here, every address it has is judged, and the connection goes to the judged address: a name
that changes its mind between the two leads nowhere else. Redirects are not followed.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpx

from control_plane.foundation.errors import ValidationFailedError

MAX_URL = 2_000
MAX_ANSWER_BYTES = 64 * 1024
_PORTS = {"http": 80, "https": 443}
# outside of it there is nothing that the internet could reach, whatever `ipaddress` knows of it
_IPV6_INTERNET = ipaddress.ip_network("2000::/3")


class OutgoingError(Exception):
    """Nothing was sent, or nobody knows whether it arrived; the message names no secret."""


class ForbiddenAddressError(OutgoingError):
    """The name leads to an address that requests must not go to."""


@dataclass(frozen=True, slots=True)
class OutgoingAnswer:
    """What the other side said. `retry_after_seconds` is None where it did not say."""

    status: int
    retry_after_seconds: float | None
    text: str


def check_url(url: str, *, field: str = "url") -> str:
    """Return an address that requests may be sent to, as far as its text tells.

    Raises:
        ValidationFailedError: it is no http or https URL, or holds a name, a password or a fragment.
    """
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError as error:
        raise ValidationFailedError(field, "must be a URL") from error
    if parts.scheme not in _PORTS or not parts.hostname or not port_is_fine or len(url) > MAX_URL:
        raise ValidationFailedError(field, "must be an http or https URL")
    if not all(0 < len(label) < 64 for label in parts.hostname.removesuffix(".").split(".")):  # noqa: PLR2004 - DNS
        raise ValidationFailedError(field, "must hold a name whose parts have 1 to 63 characters")
    if parts.username is not None or parts.password is not None:
        raise ValidationFailedError(field, "must not hold a name or a password")
    if parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        raise ValidationFailedError(field, "must hold neither a fragment nor characters beyond ASCII")
    return url


def is_public(address: str) -> bool:
    """Say whether an IP address is of the public internet."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        # addresses that hold another one lead there
        inner = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo and parsed.teredo[1])
        if inner:
            return is_public(str(inner))
        if parsed in ipaddress.ip_network("64:ff9b::/96"):
            return is_public(str(ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)))
        if parsed not in _IPV6_INTERNET:
            return False
    return parsed.is_global and not parsed.is_multicast


class OutgoingClient:
    """Posts to checked addresses. Use as an async context manager.

    `allow_private`: requests may go into private networks and to this machine, too.
    """

    def __init__(self, *, allow_private: bool = False, timeout_seconds: float = 30.0) -> None:
        self._allow_private = allow_private
        self._timeout_seconds = timeout_seconds
        self._certificates = httpx.create_ssl_context(trust_env=False)
        self._clients: dict[str, httpx.AsyncClient] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients.values():
            await client.aclose()

    def _client(self, host: str) -> httpx.AsyncClient:
        """Return a name's own connections: two names at one address must not share one, whose certificate was
        judged by the other's name. Names are as few as the addresses that people type in.
        """
        if host not in self._clients:
            # neither a proxy nor a .netrc of the environment: what was judged is what is reached
            self._clients[host] = httpx.AsyncClient(
                verify=self._certificates, timeout=self._timeout_seconds, follow_redirects=False, trust_env=False
            )
        return self._clients[host]

    async def post(self, url: str, *, content: bytes, headers: Mapping[str, str]) -> OutgoingAnswer:
        """Send a body and return the answer, whatever its status.

        Raises:
            ForbiddenAddressError: see there.
            OutgoingError: no connection, no answer in time, or no HTTP.
        """
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        try:
            async with asyncio.timeout(self._timeout_seconds):
                address = await self._address(host, port)
                return await self._send(url, address, host, content, headers)
        except TimeoutError as error:
            raise OutgoingError(f"no answer within {self._timeout_seconds:g} seconds") from error
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise OutgoingError(type(error).__name__) from error

    async def _address(self, host: str, port: int) -> str:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            # the latter where it is no name that could be asked for
            raise OutgoingError("the name cannot be resolved") from error
        addresses = [str(entry[4][0]) for entry in found]
        if not self._allow_private and not all(map(is_public, addresses)):
            raise ForbiddenAddressError("the name leads into a private network")
        return addresses[0]

    async def _send(
        self, url: str, address: str, host: str, content: bytes, headers: Mapping[str, str]
    ) -> OutgoingAnswer:
        target = httpx.URL(url)
        client = self._client(host)
        request = client.build_request(
            "POST",
            target.copy_with(host=address),
            content=content,
            headers={**headers, "Host": target.netloc.decode()},
            # certificates are judged by the name
            extensions={"sni_hostname": host},
        )
        answer = await client.send(request, stream=True)
        try:
            body = b""
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > MAX_ANSWER_BYTES:
                    break
        finally:
            await answer.aclose()
        return OutgoingAnswer(
            answer.status_code,
            _seconds(answer.headers.get("Retry-After", "")),
            body[:MAX_ANSWER_BYTES].decode(errors="replace"),
        )


def _seconds(text: str) -> float | None:
    # the form with a date is rare, and no worse off with our own pause
    return float(text) if text.isdigit() and len(text) < 7 else None  # noqa: PLR2004 - below twelve days
