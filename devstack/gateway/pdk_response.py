"""`kong.response.*`: headers for the caller, and answering in the upstream's place."""

import logging
from collections.abc import Callable
from typing import Any, Final

from devstack.gateway import protocol_messages as messages
from devstack.gateway.exchange import Exit
from devstack.gateway.pdk_call import (
    ACCESS,
    LOG,
    ExitRequestedError,
    PdkCall,
    PdkError,
    check_count,
    header_value,
)

logger = logging.getLogger("gateway.plugin")

_FRAMING = frozenset({"transfer-encoding", "transfer_encoding"})
MIN_STATUS, MAX_STATUS = 100, 599


def _exit(call: PdkCall, argument: Any) -> None:
    headers = messages.plain_struct(argument.headers) if argument.HasField("headers") else {}
    checked = {name: header_value(name, value) for name, value in headers.items()}
    answer = Exit(
        status=_check_status(argument.status),
        body=argument.body,
        headers={name: value for name, value in checked.items() if not _is_framing(call, name)},
    )
    raise ExitRequestedError(answer)


def _check_status(status: int) -> int:
    if not MIN_STATUS <= status <= MAX_STATUS:
        raise PdkError(f"code must be a number between {MIN_STATUS} and {MAX_STATUS}")
    return status


def _is_framing(call: PdkCall, name: str) -> bool:
    if name.lower() in _FRAMING:
        logger.warning("[%s] manually setting Transfer-Encoding. Ignored.", call.plugin_name)
        return True
    return False


def _set_header(call: PdkCall, argument: Any) -> None:
    _set_all(call, {argument.k: messages.plain_value(argument.v)})


def _set_headers(call: PdkCall, argument: Any) -> None:
    _set_all(call, messages.plain_struct(argument))


def _set_all(call: PdkCall, values: dict[str, Any]) -> None:
    checked = {name: header_value(name, value) for name, value in values.items()}
    for name, value in checked.items():
        if not _is_framing(call, name):
            call.exchange.early_headers.put(name, value)


def _add_header(call: PdkCall, argument: Any) -> None:
    value = header_value(argument.k, messages.plain_value(argument.v))
    call.exchange.early_headers.add(argument.k, value)


def _set_status(_: PdkCall, argument: Any) -> None:
    # the upstream's status replaces it on a proxied answer, and an exit brings its own
    _check_status(argument.v)


def _get_headers(call: PdkCall, argument: Any) -> dict[str, Any]:
    return dict(call.exchange.response_headers.table(check_count(argument.v, "max_headers")))


METHODS: Final[dict[str, tuple[str, str, frozenset[str], Callable[[PdkCall, Any], Any]]]] = {
    "kong.response.exit": ("ExitArgs", "Empty", ACCESS, _exit),
    "kong.response.set_status": ("Int", "Empty", ACCESS, _set_status),
    "kong.response.set_header": ("KV", "Empty", ACCESS, _set_header),
    "kong.response.add_header": ("KV", "Empty", ACCESS, _add_header),
    "kong.response.clear_header": (
        "String",
        "Empty",
        ACCESS,
        lambda call, name: call.exchange.early_headers.remove(name.v),
    ),
    "kong.response.set_headers": ("Struct", "Empty", ACCESS, _set_headers),
    "kong.response.get_status": ("Empty", "Int", LOG, lambda call, _: call.exchange.status),
    "kong.response.get_header": (
        "String",
        "String",
        LOG,
        lambda call, name: call.exchange.response_headers.get(name.v),
    ),
    "kong.response.get_headers": ("Int", "Struct", LOG, _get_headers),
    "kong.response.get_source": ("Empty", "String", LOG, lambda call, _: call.exchange.source),
}
