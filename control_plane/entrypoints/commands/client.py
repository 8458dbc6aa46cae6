"""Speaking to the admin API: address and token from the environment, one line for each error."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    import httpx

DEFAULT_URL = "http://127.0.0.1:8090"
PREFIX = "/admin/v1"
TIMEOUT_SECONDS = 60.0
PAGE_SIZE = 200
NO_CONTENT = 204
OTHER_TOKEN = ("KM_TO_TOKEN", "KM_TO_TOKEN_FILE")


@dataclass(slots=True)
class Target:
    """Which server; set once from the options before the command."""

    url: str = DEFAULT_URL
    token_names: tuple[str, str] = ("KM_TOKEN", "KM_TOKEN_FILE")


target = Target()


def fail(message: str) -> NoReturn:
    """End with exit code 1 and one line on stderr."""
    for line in message.splitlines() or [""]:
        typer.echo(f"km: {line}", err=True)
    raise typer.Exit(1)


def get(path: str, **params: Any) -> Any:
    """Return the answer to a GET; ends the program on any error."""
    return _call("GET", path, params=_given(params))


def post(path: str, body: dict[str, Any] | None = None, *, timeout_seconds: float = TIMEOUT_SECONDS) -> Any:
    """Return the answer to a POST with a JSON body; fields that are None are left out."""
    return _call("POST", path, timeout_seconds=timeout_seconds, json=_given(body or {}))


def post_all(path: str, body: dict[str, Any], *, timeout_seconds: float = TIMEOUT_SECONDS) -> Any:
    """Return the answer to a POST in which None means null: nothing is left out."""
    return _call("POST", path, timeout_seconds=timeout_seconds, json=body)


def patch(path: str, body: dict[str, Any]) -> Any:
    """Return the answer to a PATCH; None is sent as null, so pass only what is to change."""
    return _call("PATCH", path, json=body)


def put(path: str, body: dict[str, Any]) -> Any:
    """Return the answer to a PUT."""
    return _call("PUT", path, json=body)


def delete(path: str) -> Any:
    """Return the answer to a DELETE."""
    return _call("DELETE", path)


def pages(path: str, *, at_most: int, **params: Any) -> Iterator[dict[str, Any]]:
    """Yield the items of a list, page after page, up to `at_most`."""
    cursor: str | None = None
    left = at_most
    while left > 0:
        page = get(path, limit=min(left, PAGE_SIZE), cursor=cursor, **params)
        yield from page["items"]
        left -= len(page["items"])
        cursor = page["next_cursor"]
        if cursor is None:
            return


def download(path: str, target: Path, *, sha256: str = "") -> None:
    """Write what a GET answers into a file; nothing is left of it where the transfer fails or its hash differs."""
    import httpx

    headers = {"Authorization": f"Bearer {read_token()}"}
    hashed = hashlib.sha256()
    partial = target.with_name(f"{target.name}.part")
    try:
        with (
            _told_transport(TIMEOUT_SECONDS),
            httpx.stream("GET", f"{target_url()}{path}", headers=headers, timeout=TIMEOUT_SECONDS) as answer,
        ):
            if answer.is_error:
                answer.read()
                fail(problem_lines(answer))
            with partial.open("wb") as file:
                for piece in answer.iter_bytes():
                    hashed.update(piece)
                    file.write(piece)
        if sha256 and hashed.hexdigest() != sha256:
            fail(f"{target}: what came is not what the server wrote: try again")
        partial.replace(target)
    except OSError as error:
        fail(f"{target}: {error.strerror}")
    finally:
        partial.unlink(missing_ok=True)


def target_url() -> str:
    """Return where the API's routes begin."""
    return f"{target.url}{PREFIX}"


@contextmanager
def another_server(url: str) -> Iterator[None]:
    """Speak to another server meanwhile, with the token of KM_TO_TOKEN(_FILE) or, without one, the usual token."""
    before = target.url, target.token_names
    target.url = url.rstrip("/")
    if any(os.environ.get(name, "").strip() for name in OTHER_TOKEN):
        target.token_names = OTHER_TOKEN
    try:
        yield
    finally:
        target.url, target.token_names = before


def read_token() -> str:
    """Return the token from KM_TOKEN, else from the file that KM_TOKEN_FILE names.

    Never from an argument: those stand in the list of processes for everybody to read.
    """
    plain, in_file = target.token_names
    if token := os.environ.get(plain, "").strip():
        return token
    if name := os.environ.get(in_file):
        try:
            return Path(name).read_text(encoding="utf-8").strip()
        except OSError as error:
            fail(f"{in_file}: {name}: {error.strerror}")
    fail("no token: set KM_TOKEN (or KM_TOKEN_FILE); the first one is made by `km db create-token`")


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _call(method: str, path: str, *, timeout_seconds: float = TIMEOUT_SECONDS, **request: Any) -> Any:
    import httpx

    headers = {"Authorization": f"Bearer {read_token()}"}
    with _told_transport(timeout_seconds):
        answer = httpx.request(
            method, f"{target_url()}{path}", headers=headers, timeout=timeout_seconds, **request
        )
    if answer.is_error:
        fail(problem_lines(answer))
    return _read_json(answer)


@contextmanager
def _told_transport(timeout_seconds: float) -> Iterator[None]:
    """End the program with a sentence where the server cannot be reached."""
    import httpx

    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError):
        fail(f"--url: {target.url!r} is not an http or https address")
    except httpx.TimeoutException:
        fail(f"no answer from {target.url} within {timeout_seconds:.0f} s")
    except httpx.TransportError as error:
        fail(f"cannot reach {target.url}: {error} (is `km serve` running there? --url or KM_URL names it)")


def _read_json(answer: "httpx.Response") -> Any:
    if answer.status_code == NO_CONTENT:
        return None
    try:
        return answer.json()
    except ValueError:
        fail(f"{target.url} answered {answer.status_code} with something that is not ours (a proxy?)")


def problem_lines(answer: "httpx.Response") -> str:
    """Return what an error answer says, a line for each wrong field."""
    try:
        problem = answer.json()
        lines = [f"{wrong['field']}: {wrong['message']}".removeprefix(": ") for wrong in problem["errors"]]
        return "\n".join(lines) or f"{problem['detail']} ({problem['code']})"
    except (KeyError, TypeError, ValueError):
        return f"{target.url} answered {answer.status_code} {answer.reason_phrase}"
