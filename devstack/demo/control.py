"""A small client of the product's own REST API: the demo sees what an administrator sees, and nothing else."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

import aiohttp

EVENTS_PAGE = 200


class ControlError(Exception):
    """The REST API refused; the message is what it said."""


class ControlClient:
    """Use as an async context manager. Raises ControlError on any answer that is not a success."""

    def __init__(self, url: str, token: str) -> None:
        self._url = f"{url}/admin/v1"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=aiohttp.ClientTimeout(total=30))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, params: Any = None) -> Any:
        return await self._call("GET", path, params=params)

    async def post(self, path: str, body: Mapping[str, Any] | None = None, *, yaml: str | None = None) -> Any:
        if yaml is not None:
            headers = {"Content-Type": "application/yaml"}
            return await self._call("POST", path, data=yaml.encode(), headers=headers)
        return await self._call("POST", path, json=body or {})

    async def put(self, path: str, body: Mapping[str, Any]) -> Any:
        return await self._call("PUT", path, json=body)

    async def pages(self, path: str, params: Mapping[str, Any] | None = None) -> AsyncIterator[dict[str, Any]]:
        """Yield the items of every page."""
        cursor: str | None = None
        while True:
            query = {"limit": EVENTS_PAGE, **(params or {}), **({"cursor": cursor} if cursor else {})}
            page = await self.get(path, query)
            for item in page["items"]:
                yield item
            cursor = page["next_cursor"]
            if cursor is None:
                return

    async def _call(self, method: str, path: str, **options: Any) -> Any:
        if self._session is None:
            raise RuntimeError("use ControlClient as an async context manager")
        async with self._session.request(method, self._url + path, **options) as answer:
            body = await answer.json(content_type=None)
            if not answer.ok:
                raise ControlError(f"{method} {path}: {answer.status} {body}")
            return body
