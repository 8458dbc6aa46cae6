"""One request of the API from its bytes to its answer, without the network."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from devstack.stripe.contract.checking import Contract
from devstack.stripe.contract.forms import parse_form
from devstack.stripe.problems import StripeProblem
from devstack.stripe.rendering import render
from devstack.stripe.routes import Call, match
from devstack.stripe.simulator import API_VERSION, Simulator
from devstack.stripe.state import Object

KEY_PREFIXES = ("sk_test_", "rk_test_")


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


def work(sim: Simulator, contract: Contract, request: Request, request_id: str) -> Answer:
    """Do it. Never raises: refusals and the simulator's own mistakes become answers."""
    version = request.headers.get("stripe-version", API_VERSION)
    headers = {"Request-Id": request_id, "Stripe-Version": version}
    try:
        _check_key(request.headers.get("authorization", ""))
        shown = _perform(sim, contract, request, request_id)
    except StripeProblem as problem:
        return Answer(problem.status, to_json(problem.body()), {**headers, **problem.headers})
    except Exception as error:  # noqa: BLE001 - whatever a handler raises is the simulator's mistake, and recorded
        return _own_mistake(sim, request, headers, repr(error))
    return Answer(200, to_json(shown), headers)


def _perform(sim: Simulator, contract: Contract, request: Request, request_id: str) -> Any:
    found = match(request.method, request.path)
    if found is None:
        raise StripeProblem(
            f"Unrecognized request URL ({request.method}: {request.path}). "
            "Either Stripe has no such operation or the simulator does not know it.",
            status=404,
        )
    taken, ids = found
    params = contract.params(request.method, taken.template, _raw_params(request))
    call = Call(
        method=request.method,
        url_path=request.path,
        path={name: unquote(value) for name, value in ids.items()},
        params=params,
        request_id=request_id,
        idempotency_key=request.headers.get("idempotency-key"),
        expand=tuple(params.pop("expand", ())),
        base_url=request.base_url,
        headers=request.headers,
    )
    sim.request = (request_id, call.idempotency_key)
    try:
        made: Object = taken.handler(sim, call)
    finally:
        sim.request = (None, None)
    shown = render(sim.state, made, call.expand)
    if problem := contract.answer_problem(request.method, taken.template, shown):
        sim.violation(f"answer of {request.method} {taken.template}", problem)
        raise StripeProblem(f"The simulator's answer breaks the contract: {problem}", status=500, kind="api_error")
    return shown


def _raw_params(request: Request) -> Any:
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


def _own_mistake(sim: Simulator, request: Request, headers: dict[str, str], problem: str) -> Answer:
    sim.violation(f"handler of {request.method} {request.path}", problem)
    body = StripeProblem(f"The simulator made a mistake: {problem}", status=500, kind="api_error").body()
    return Answer(500, to_json(body), headers)


def to_json(value: Any) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode()
