"""One request of the API from its bytes to its answer, without the network."""

import json
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from devstack.stripe.contract.checking import Contract
from devstack.stripe.contract.forms import parse_form
from devstack.stripe.problems import StripeProblem
from devstack.stripe.rendering import render
from devstack.stripe.routes import Call, Route, match
from devstack.stripe.simulator import API_VERSION, Simulator
from devstack.stripe.state import Object

KEY_PREFIXES = ("sk_test_", "rk_test_")
TOO_MANY = 429


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    base_url: str = ""


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    began: bool = False
    """A handler had begun: from here on an idempotency key keeps the answer."""


def work(sim: Simulator, contract: Contract, request: Request, request_id: str) -> Answer:
    """Do it. Never raises: refusals and the simulator's own mistakes become answers."""
    version = request.headers.get("stripe-version", API_VERSION)
    headers = {"Request-Id": request_id, "Stripe-Version": version}
    if "idempotency-key" in request.headers:
        headers["Idempotency-Key"] = request.headers["idempotency-key"]
    began = False
    try:
        _check_key(request.headers.get("authorization", ""))
        _check_version(version)
        taken, call = _read(contract, request, request_id)
        began = True
        shown = _perform(sim, contract, taken, call)
    except StripeProblem as problem:
        began = began and problem.status != TOO_MANY
        return Answer(problem.status, to_json(problem.body()), {**headers, **problem.headers}, began)
    except Exception as error:  # noqa: BLE001 - whatever a handler raises is the simulator's mistake, and recorded
        return _own_mistake(sim, request, headers, error)
    return Answer(200, to_json(shown), headers, began)


def _read(contract: Contract, request: Request, request_id: str) -> tuple[Route, Call]:
    found = match(request.method, request.path)
    if found is None:
        raise StripeProblem(
            f"Unrecognized request URL ({request.method}: {request.path}). "
            "Either Stripe has no such operation or the simulator does not know it.",
            status=404,
        )
    taken, ids = found
    params = contract.params(request.method, taken.template, raw_params(request))
    expand = tuple(params.pop("expand", ()))
    return taken, Call(
        method=request.method,
        url_path=request.path,
        path={name: unquote(value) for name, value in ids.items()},
        params=params,
        request_id=request_id,
        idempotency_key=request.headers.get("idempotency-key"),
        expand=expand,
        base_url=request.base_url,
        headers=request.headers,
    )


def _perform(sim: Simulator, contract: Contract, taken: Route, call: Call) -> Any:
    sim.request = (call.request_id, call.idempotency_key)
    try:
        made: Object = taken.handler(sim, call)
    finally:
        sim.request = (None, None)
    shown = render(sim.state, made, call.expand)
    if problem := contract.answer_problem(call.method, taken.template, shown):
        sim.violation(f"answer of {call.method} {taken.template}", problem)
        raise StripeProblem(f"The simulator's answer breaks the contract: {problem}", status=500, kind="api_error")
    return shown


def raw_params(request: Request) -> Any:
    """As they came: strings in a form, values in JSON. Raises StripeProblem."""
    is_json = request.headers.get("content-type", "").startswith("application/json")
    if is_json and request.body:
        try:
            return json.loads(request.body)
        except ValueError:
            raise StripeProblem("The body is not JSON.") from None
    params = parse_form(request.query)
    if request.method != "GET" and request.body:
        params.update(parse_form(request.body.decode()))
    return params


def _check_key(authorization: str) -> None:
    scheme, _, key = authorization.partition(" ")
    if scheme != "Bearer" or not key:
        raise StripeProblem("You did not provide an API key.", status=401)
    if not key.startswith(KEY_PREFIXES):
        raise StripeProblem(
            "Invalid API Key provided: the simulator takes test keys only (sk_test_..., rk_test_...).", status=401
        )


def _check_version(version: str) -> None:
    if version != API_VERSION:
        raise StripeProblem(f"The simulator speaks API version {API_VERSION} only, not {version}.")


def _own_mistake(sim: Simulator, request: Request, headers: dict[str, str], error: Exception) -> Answer:
    trace = "".join(traceback.format_exception(error))[-3000:]
    sim.violation(f"handler of {request.method} {request.path}", trace)
    body = StripeProblem(f"The simulator made a mistake: {error!r}", status=500, kind="api_error").body()
    return Answer(500, to_json(body), headers, began=True)


def to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
