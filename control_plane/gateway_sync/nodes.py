"""Kong nodes as HTTP: what configuration one runs, and giving it another. No database, no policy."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

import httpx

# a whole configuration may come back in the answer; people read a sentence
DETAIL_LENGTH = 1000


class PushOutcome(StrEnum):
    """How a node took a configuration."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    REFUSED = "refused"  # it objects to the configuration; every other node would, too
    FAILED = "failed"  # it had trouble of its own, or is loading another configuration
    UNREACHABLE = "unreachable"
    NOT_VERIFIED = "not_verified"


@dataclass(frozen=True, slots=True)
class NodeReading:
    """`hash` is the node's `configuration_hash`, None where it did not tell; `detail` says why."""

    hash: str | None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class NodePush:
    """The result of one push; `hash_after` is what the node showed afterwards."""

    outcome: PushOutcome
    hash_before: str | None
    hash_after: str | None
    detail: str | None = None

    @property
    def succeeded(self) -> bool:
        return self.outcome in (PushOutcome.APPLIED, PushOutcome.UNCHANGED)


def node_name(admin_url: str) -> str:
    """Return the host and port that people know a node by."""
    return urlsplit(admin_url).netloc.rpartition("@")[2] or admin_url


def public_url(admin_url: str) -> str:
    """Return the address without the name and password that may stand in it."""
    parts = urlsplit(admin_url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


async def read_configuration_hash(client: httpx.AsyncClient, admin_url: str) -> NodeReading:
    """Ask a node for its configuration hash; a node that cannot answer gives a reading without one."""
    try:
        response = await client.get(f"{admin_url.rstrip('/')}/status")
        response.raise_for_status()
        value = response.json().get("configuration_hash")
    except httpx.HTTPStatusError as error:
        return NodeReading(None, f"GET /status was answered with {error.response.status_code}")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return NodeReading(None, f"{type(error).__name__}: {error}"[:DETAIL_LENGTH])
    except (AttributeError, ValueError):
        return NodeReading(None, "GET /status did not answer a JSON object: is this Kong's Admin API?")
    if not isinstance(value, str):
        return NodeReading(None, "this Kong shows no configuration_hash: it does not run without a database")
    return NodeReading(value)


async def push_text(client: httpx.AsyncClient, admin_url: str, *, text: str, expected_hash: str) -> NodePush:
    """Give a node the whole configuration and read back what it runs.

    The node keeps its old configuration whole when it refuses this one. As YAML, since Kong compares no hash, and
    so reloads everything, when it gets JSON.
    """
    before = await read_configuration_hash(client, admin_url)
    if before.hash is None:
        return NodePush(PushOutcome.UNREACHABLE, None, None, before.detail)
    try:
        response = await client.post(
            f"{admin_url.rstrip('/')}/config",
            params={"check_hash": "1"},
            content=text.encode(),
            headers={"content-type": "application/yaml"},
        )
    except httpx.HTTPError as error:
        # it may or may not have taken it: the next check will tell
        return NodePush(PushOutcome.UNREACHABLE, before.hash, None, f"{type(error).__name__}: {error}")
    if response.status_code not in (httpx.codes.CREATED, httpx.codes.NOT_MODIFIED):
        own_trouble = response.is_server_error or response.status_code == httpx.codes.TOO_MANY_REQUESTS
        outcome = PushOutcome.FAILED if own_trouble else PushOutcome.REFUSED
        return NodePush(outcome, before.hash, before.hash, explain_refusal(response))
    return await _verify(
        client, admin_url, before=before.hash, status=response.status_code, expected=expected_hash
    )


async def _verify(
    client: httpx.AsyncClient, admin_url: str, *, before: str, status: int, expected: str
) -> NodePush:
    after = await read_configuration_hash(client, admin_url)
    if after.hash != expected:
        detail = after.detail or f"shows configuration {after.hash} after it took {expected}"
        return NodePush(PushOutcome.NOT_VERIFIED, before, after.hash, detail)
    outcome = PushOutcome.APPLIED if status == httpx.codes.CREATED else PushOutcome.UNCHANGED
    return NodePush(outcome, before, after.hash)


def explain_refusal(response: httpx.Response) -> str:
    """Return a sentence with the fields that Kong objects to, or the start of whatever it said."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return f"{response.status_code}: {response.text}"[:DETAIL_LENGTH]
    fields = "; ".join(f"{path}: {message}" for path, message in _messages(body.get("fields"), ""))
    return f"{response.status_code}: {fields or body.get('message') or json.dumps(body)}"[:DETAIL_LENGTH]


def _messages(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Flatten Kong's nested `fields` into paths that count from 0.

    Kong's lists are sparse: short ones come with nulls between, long ones as objects keyed by numbers from 1.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            step = f"[{int(name) - 1}]" if name.isdecimal() else f".{name}"
            yield from _messages(inner, f"{path}{step}".removeprefix("."))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _messages(inner, f"{path}[{number}]")
    elif value is not None:
        yield path, str(value)
