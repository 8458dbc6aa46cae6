"""`kong.request.*`, `kong.client.*` addresses, `kong.service.*`: what came in, and what goes to the upstream."""

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from devstack.gateway import protocol_messages as messages
from devstack.gateway.exchange import UpstreamCall
from devstack.gateway.pdk_call import ACCESS, ANY, PdkCall, PdkError, check_count, header_value
from devstack.gateway.uris import bytewise, readable

# nginx keeps a larger body in a file and Kong then gives none
MAX_BODY_BYTES = 8 * 1024


def _get_headers(call: PdkCall, argument: Any) -> dict[str, Any]:
    return dict(call.exchange.headers.table(check_count(argument.v, "max_headers")))


def _get_query(call: PdkCall, argument: Any) -> dict[str, Any]:
    return call.exchange.query_table(check_count(argument.v, "max_args"))


def _get_query_argument(call: PdkCall, argument: Any) -> str | None:
    found = call.exchange.query_table().get(argument.v)
    if isinstance(found, list):
        found = found[0]
    return found if isinstance(found, str) else None


async def _get_raw_body(call: PdkCall, _: Any) -> Any:
    body = await call.exchange.request.body.read_all()
    call.exchange.request.body.put_back(body)
    if len(body) > MAX_BODY_BYTES:
        return messages.new("RawBodyResult", error="request body did not fit into client body buffer")
    return messages.new("RawBodyResult", content=body)


def _path_with_query(call: PdkCall, _: Any) -> str:
    return readable(call.exchange.request.target)


def _upstream(call: PdkCall) -> UpstreamCall:
    if call.exchange.upstream is None:
        raise PdkError("there is no upstream for this request")
    return call.exchange.upstream


def _set_header(call: PdkCall, argument: Any) -> None:
    _set_one_header(call, argument.k, messages.plain_value(argument.v))


def _set_one_header(call: PdkCall, name: str, value: Any) -> None:
    checked = header_value(name, value)
    if name.lower() == "host":
        _upstream(call).host_header = checked if isinstance(checked, str) else checked[0]
    call.exchange.headers.put(name, checked)


def _add_header(call: PdkCall, argument: Any) -> None:
    call.exchange.headers.add(argument.k, header_value(argument.k, messages.plain_value(argument.v)))


def _set_headers(call: PdkCall, argument: Any) -> None:
    values = messages.plain_struct(argument)
    # all or nothing: Kong checks every value before it sets the first
    for name, value in values.items():
        header_value(name, value)
    for name, value in values.items():
        _set_one_header(call, name, value)


def _set_scheme(_: PdkCall, argument: Any) -> None:
    if argument.v != "http":
        raise PdkError("the local gateway speaks plain HTTP to upstreams only")


def _set_path(call: PdkCall, argument: Any) -> None:
    if not argument.v.startswith("/"):
        raise PdkError("path must start with /")
    _upstream(call).path = quote(argument.v, safe="!#$&'()*+,/:;=?@[]-_.~%")


def _set_raw_query(call: PdkCall, argument: Any) -> None:
    # nginx writes no question mark before an empty query
    _upstream(call).query = bytewise(argument.v) or None


def _set_method(call: PdkCall, argument: Any) -> None:
    _upstream(call).method = argument.v


def _set_query(call: PdkCall, argument: Any) -> None:
    parts = []
    for name, value in sorted(messages.plain_struct(argument).items()):
        for one in value if isinstance(value, list) else [value]:
            text = one if isinstance(one, str) else header_value(name, one)
            parts.append(
                quote(name, safe="") if one is True else f"{quote(name, safe='')}={quote(str(text), safe='')}"
            )
    _upstream(call).query = "&".join(parts)


def _set_raw_body(call: PdkCall, argument: Any) -> None:
    _upstream(call).body = argument.v


def _set_upstream(call: PdkCall, argument: Any) -> bool | None:
    if argument.v not in call.exchange.upstreams:
        return None  # Kong's nil, whose error text the protocol does not carry
    _upstream(call).host = argument.v
    return True


def _set_target(call: PdkCall, argument: Any) -> None:
    upstream = _upstream(call)
    upstream.host, upstream.port = argument.host, argument.port


METHODS: Final[dict[str, tuple[str, str, frozenset[str], Callable[[PdkCall, Any], Any]]]] = {
    "kong.request.get_headers": ("Int", "Struct", ANY, _get_headers),
    "kong.request.get_header": (
        "String",
        "String",
        ANY,
        lambda call, name: call.exchange.headers.get(name.v),
    ),
    "kong.request.get_scheme": ("Empty", "String", ACCESS, lambda _, __: "http"),
    "kong.request.get_forwarded_scheme": ("Empty", "String", ACCESS, lambda _, __: "http"),
    "kong.request.get_host": ("Empty", "String", ACCESS, lambda call, _: call.exchange.host),
    "kong.request.get_forwarded_host": ("Empty", "String", ACCESS, lambda call, _: call.exchange.host),
    "kong.request.get_port": ("Empty", "Int", ACCESS, lambda call, _: call.exchange.request.server_port),
    "kong.request.get_forwarded_port": (
        "Empty",
        "Int",
        ACCESS,
        lambda call, _: call.exchange.request.server_port,
    ),
    "kong.request.get_http_version": (
        "Empty",
        "Number",
        ACCESS,
        lambda call, _: float(call.exchange.request.http_version),
    ),
    "kong.request.get_method": ("Empty", "String", ACCESS, lambda call, _: call.exchange.request.method),
    "kong.request.get_path": ("Empty", "String", ACCESS, lambda call, _: call.exchange.path),
    "kong.request.get_path_with_query": ("Empty", "String", ACCESS, _path_with_query),
    "kong.request.get_raw_query": (
        "Empty",
        "String",
        ACCESS,
        lambda call, _: readable(call.exchange.query or ""),
    ),
    "kong.request.get_query_arg": ("String", "String", ACCESS, _get_query_argument),
    "kong.request.get_query": ("Int", "Struct", ACCESS, _get_query),
    "kong.request.get_raw_body": ("Empty", "RawBodyResult", ACCESS, _get_raw_body),
    "kong.client.get_ip": ("Empty", "String", ACCESS, lambda call, _: call.exchange.request.client_ip),
    "kong.client.get_forwarded_ip": (
        "Empty",
        "String",
        ACCESS,
        lambda call, _: call.exchange.request.client_ip,
    ),
    "kong.client.get_port": ("Empty", "Int", ACCESS, lambda call, _: call.exchange.request.client_port),
    "kong.client.get_forwarded_port": (
        "Empty",
        "Int",
        ACCESS,
        lambda call, _: call.exchange.request.client_port,
    ),
    "kong.client.get_protocol": ("Bool", "String", ACCESS, lambda _, __: "http"),
    # there are no upstream entities here, and Kong gives nothing for one it does not know
    "kong.service.set_upstream": ("String", "Bool", ACCESS, _set_upstream),
    "kong.service.set_target": ("Target", "Empty", ACCESS, _set_target),
    "kong.service.request.set_scheme": ("String", "Empty", ACCESS, _set_scheme),
    "kong.service.request.set_path": ("String", "Empty", ACCESS, _set_path),
    "kong.service.request.set_raw_query": ("String", "Empty", ACCESS, _set_raw_query),
    "kong.service.request.set_method": ("String", "Empty", ACCESS, _set_method),
    "kong.service.request.set_query": ("Struct", "Empty", ACCESS, _set_query),
    "kong.service.request.set_header": ("KV", "Empty", ACCESS, _set_header),
    "kong.service.request.add_header": ("KV", "Empty", ACCESS, _add_header),
    "kong.service.request.clear_header": (
        "String",
        "Empty",
        ACCESS,
        lambda call, name: call.exchange.headers.remove(name.v),
    ),
    "kong.service.request.set_headers": ("Struct", "Empty", ACCESS, _set_headers),
    "kong.service.request.set_raw_body": ("ByteString", "Empty", ACCESS, _set_raw_body),
}
