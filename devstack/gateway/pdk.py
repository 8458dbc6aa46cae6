"""The PDK methods a plugin may call over the wire, with the phases in which Kong allows them.

What Kong has and this does not know (TLS, memory statistics, the response phase) is refused like an unknown
method: the event fails, and a plugin's tests show it.
"""

import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from devstack.gateway import pdk_request, pdk_response
from devstack.gateway import protocol_messages as messages
from devstack.gateway.pdk_call import ACCESS, ANY, LOG, ExitRequestedError, PdkCall, PdkError
from devstack.gateway.uris import readable

plugin_log = logging.getLogger("gateway.plugin")

_LEVELS = {
    "alert": logging.CRITICAL,
    "crit": logging.CRITICAL,
    "err": logging.ERROR,
    "warn": logging.WARNING,
    "notice": logging.INFO,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}
NODE_ID: Final = "6d3c1f0e-0000-4000-8000-00006b6f6e67"


@dataclass(frozen=True)
class Method:
    """`run` gets the decoded argument and returns the plain result, None for nothing."""

    argument: str
    result: str
    phases: frozenset[str]
    run: Callable[[PdkCall, Any], Any]


def _write_log(level: int) -> Callable[[PdkCall, Any], None]:
    def write(call: PdkCall, argument: Any) -> None:
        parts = [messages.plain_value(value) for value in argument.values]
        plugin_log.log(level, "[%s] %s", call.plugin_name, "".join(str(part) for part in parts))

    return write


def _serialize(call: PdkCall, _: Any) -> str:
    return call.serialized.decode() if call.serialized is not None else ""


def _set_serialize_value(call: PdkCall, argument: Any) -> None:
    call.exchange.serialize_values.append((argument.k, messages.plain_value(argument.v)))


def _get_credential(call: PdkCall, _: Any) -> Any:
    found = call.exchange.credential
    return None if found is None else messages.new("AuthenticatedCredential", **found)


def _get_consumer(call: PdkCall, _: Any) -> Any:
    found = call.exchange.consumer
    return None if found is None else messages.new("Consumer", **found)


def _authenticate(call: PdkCall, argument: Any) -> None:
    consumer = argument.consumer if argument.HasField("consumer") else None
    credential = argument.credential if argument.HasField("credential") else None
    if consumer is None and credential is None:
        raise PdkError("either credential or consumer must be provided")
    # Kong's decoder fills in what the plugin left out
    call.exchange.consumer = consumer and {
        "id": consumer.id,
        "created_at": consumer.created_at,
        "username": consumer.username,
        "custom_id": consumer.custom_id,
        "tags": list(consumer.tags),
    }
    call.exchange.credential = credential and {"id": credential.id, "consumer_id": credential.consumer_id}


def _load_consumer(_: PdkCall, __: Any) -> None:
    """There are no consumers in this gateway's configuration."""


def _get_route(call: PdkCall, _: Any) -> Any:
    match = call.exchange.match
    return None if match is None else messages.new("Route", **_entity("Route", match.route.fields))


def _get_service(call: PdkCall, _: Any) -> Any:
    match = call.exchange.match
    return None if match is None else messages.new("Service", **_entity("Service", match.route.service.fields))


def _entity(message: str, fields: dict[str, Any]) -> dict[str, Any]:
    known = messages.field_names(message)
    out = {name: value for name, value in fields.items() if name in known}
    if "service" in out:
        out["service"] = messages.new("ServiceKey", id=out["service"]["id"])
    return out


def _set_shared(call: PdkCall, argument: Any) -> None:
    call.exchange.shared[argument.k] = messages.plain_value(argument.v)


def _set_nginx_context(call: PdkCall, argument: Any) -> None:
    call.exchange.nginx_context[argument.k] = messages.plain_value(argument.v)


def _get_variable(call: PdkCall, argument: Any) -> str | None:
    exchange, name = call.exchange, argument.v
    if name.startswith("http_"):
        return exchange.headers.get(name[5:].replace("_", "-"))
    if name.startswith("sent_http_"):
        return exchange.early_headers.get(name[10:].replace("_", "-"))
    if name.startswith("arg_"):
        found = exchange.query_table().get(name[4:])
        return found if isinstance(found, str) else None
    values = {
        "kong_request_id": exchange.id,
        "request_id": exchange.nginx_id,
        "remote_addr": exchange.request.client_ip,
        "remote_port": str(exchange.request.client_port),
        "request_method": exchange.request.method,
        "request_uri": readable(exchange.request.target),
        "request_length": str(exchange.request.request_bytes),
        "args": readable(exchange.query or ""),
        "host": exchange.host,
        "scheme": "http",
        "server_port": str(exchange.request.server_port),
        "server_protocol": f"HTTP/{exchange.request.http_version}",
    }
    return values.get(name)


def _method(
    argument: str, result: str, run: Callable[[PdkCall, Any], Any], phases: frozenset[str] = ANY
) -> Method:
    return Method(argument, result, phases, run)


METHODS: Final[dict[str, Method]] = {
    **{
        f"kong.log.{level}": _method("ListValue", "Empty", _write_log(number)) for level, number in _LEVELS.items()
    },
    "kong.log.serialize": _method("Empty", "String", _serialize, LOG),
    "kong.log.set_serialize_value": _method("KV", "Empty", _set_serialize_value, ACCESS),
    "kong.client.get_credential": _method("Empty", "AuthenticatedCredential", _get_credential),
    "kong.client.get_consumer": _method("Empty", "Consumer", _get_consumer),
    "kong.client.load_consumer": _method("ConsumerSpec", "Consumer", _load_consumer),
    "kong.client.authenticate": _method("AuthenticateArgs", "Empty", _authenticate, ACCESS),
    "kong.ctx.shared.set": _method("KV", "Empty", _set_shared),
    "kong.ctx.shared.get": _method("String", "Value", lambda call, name: call.exchange.shared.get(name.v)),
    "kong.ip.is_trusted": _method("String", "Bool", lambda _, __: False),
    "kong.nginx.get_var": _method("String", "String", _get_variable, ACCESS),
    "kong.nginx.set_ctx": _method("KV", "String", _set_nginx_context),
    "kong.nginx.get_ctx": _method("String", "Value", lambda call, name: call.exchange.nginx_context.get(name.v)),
    "kong.nginx.req_start_time": _method("Empty", "Number", lambda call, _: call.exchange.started_at_ms / 1000),
    "kong.nginx.get_subsystem": _method("Empty", "String", lambda _, __: "http"),
    "kong.node.get_id": _method("Empty", "String", lambda _, __: NODE_ID),
    "kong.router.get_route": _method("Empty", "Route", _get_route),
    "kong.router.get_service": _method("Empty", "Service", _get_service),
    **{
        name: Method(argument, result, phases, run)
        for table in (pdk_request.METHODS, pdk_response.METHODS)
        for name, (argument, result, phases, run) in table.items()
    },
}


async def call_method(name: str, argument: bytes, call: PdkCall) -> bytes:
    """Returns the encoded result, b"" for nothing.

    Raises PdkError where Kong's method raises, ExitRequestedError for `kong.response.exit`.
    """
    method = METHODS[name]
    if call.phase not in method.phases:
        raise PdkError(f"{name} cannot be called in the {call.phase} phase of an external plugin")
    found = method.run(call, messages.parse(method.argument, argument))
    if inspect.isawaitable(found):
        found = await _awaited(found)
    return _encoded(method.result, found)


async def _awaited(found: Awaitable[Any]) -> Any:
    return await found


def _encoded(result: str, found: Any) -> bytes:
    if result in {"String", "Int", "Number", "Bool"}:
        return b"" if found is None else messages.new(result, v=found).SerializeToString()
    if result == "Value":
        value = messages.new("Value")
        messages.fill_value(value, found)
        return bytes(value.SerializeToString())
    if result == "Struct":
        return bytes(messages.struct_of(found).SerializeToString())
    return b"" if found is None else found.SerializeToString()


__all__ = ["METHODS", "ExitRequestedError", "PdkCall", "PdkError", "call_method"]
