"""Every message of the protocol as a table of fields, and a codec that walks it.

For the rare messages, for both directions: a test or a local gateway speaks Kong's side with the same table.
The source of names and numbers is Kong 3.9's description of the protocol, package `kong_plugin_protocol`.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from kong_plugins.server import wire
from kong_plugins.server.errors import WireError

# Field name -> (number, kind). A kind is a scalar, a name in MESSAGES, or either behind "repeated ".
Fields: TypeAlias = dict[str, tuple[int, str]]

_ENTITY: Fields = {"id": (1, "string"), "created_at": (2, "int")}
_DATED: Fields = _ENTITY | {"updated_at": (3, "int"), "name": (4, "string")}
_V = 1

MESSAGES: dict[str, Fields] = {
    "RpcCall": {
        "sequence": (1, "int"),
        "cmd_get_plugin_names": (31, "Empty"),
        "cmd_get_plugin_info": (32, "CmdGetPluginInfo"),
        "cmd_start_instance": (33, "CmdStartInstance"),
        "cmd_get_instance_status": (34, "CmdInstance"),
        "cmd_close_instance": (35, "CmdInstance"),
        "cmd_handle_event": (36, "CmdHandleEvent"),
    },
    "RpcReturn": {
        "sequence": (1, "int"),
        "plugin_names": (31, "PluginNames"),
        "plugin_info": (32, "PluginInfo"),
        "instance_status": (33, "InstanceStatus"),
    },
    "CmdGetPluginInfo": {"name": (1, "string")},
    "CmdStartInstance": {"name": (1, "string"), "config": (2, "bytes")},
    "CmdInstance": {"instance_id": (1, "int")},
    "CmdHandleEvent": {"instance_id": (1, "int"), "event_name": (2, "string")},
    "PluginNames": {"names": (1, "repeated string")},
    "PluginInfo": {
        "name": (1, "string"),
        "updated_at": (2, "int"),
        "loaded_at": (3, "int"),
        "phases": (4, "repeated string"),
        "version": (5, "string"),
        "priority": (6, "int"),
        "schema": (7, "string"),
    },
    "InstanceStatus": {
        "name": (1, "string"),
        "instance_id": (2, "int"),
        "config": (3, "Value"),
        "started_at": (4, "int"),
    },
    "Empty": {},
    "Bool": {"v": (_V, "bool")},
    "Int": {"v": (_V, "int")},
    "Number": {"v": (_V, "double")},
    "String": {"v": (_V, "string")},
    "ByteString": {"v": (_V, "bytes")},
    "KV": {"k": (1, "string"), "v": (2, "Value")},
    "ExitArgs": {"status": (1, "int"), "body": (2, "bytes"), "headers": (3, "Struct")},
    "Target": {"host": (1, "string"), "port": (2, "int")},
    "Key": {"id": (1, "string")},
    "ConsumerSpec": {"id": (1, "string"), "by_username": (2, "bool")},
    "Consumer": _ENTITY | {"username": (3, "string"), "custom_id": (4, "string"), "tags": (5, "repeated string")},
    "AuthenticatedCredential": {"id": (1, "string"), "consumer_id": (2, "string")},
    "AuthenticateArgs": {"consumer": (1, "Consumer"), "credential": (2, "AuthenticatedCredential")},
    "RawBodyResult": {"content": (1, "bytes"), "body_filepath": (2, "string"), "error": (3, "string")},
    "UriCapturesResult": {"unnamed": (1, "repeated bytes"), "named": (2, "repeated NamedCapture")},
    "NamedCapture": {"key": (1, "string"), "value": (2, "bytes")},
    "Route": _DATED
    | {
        "protocols": (5, "repeated string"),
        "methods": (6, "repeated string"),
        "hosts": (7, "repeated string"),
        "paths": (8, "repeated string"),
        "headers": (9, "repeated string"),
        "https_redirect_status_code": (10, "int"),
        "regex_priority": (11, "int"),
        "strip_path": (12, "bool"),
        "preserve_host": (13, "bool"),
        "snis": (14, "repeated string"),
        "sources": (15, "repeated string"),
        "destinations": (16, "repeated string"),
        "tags": (17, "repeated string"),
        "service": (18, "Key"),
    },
    "Service": _DATED
    | {
        "retries": (5, "int"),
        "protocol": (6, "string"),
        "host": (7, "string"),
        "port": (8, "int"),
        "path": (9, "string"),
        "connect_timeout": (10, "int"),
        "write_timeout": (11, "int"),
        "read_timeout": (12, "int"),
        "tags": (13, "repeated string"),
        "client_certificate": (14, "Key"),
    },
    "MemoryStats": {
        "lua_shared_dicts": (1, "LuaSharedDicts"),
        "workers_lua_vms": (2, "repeated WorkerLuaVm"),
    },
    "LuaSharedDicts": {"kong": (1, "DictStats"), "kong_db_cache": (2, "DictStats")},
    "DictStats": {"allocated_slabs": (1, "int"), "capacity": (2, "int")},
    "WorkerLuaVm": {"http_allocated_gc": (1, "int"), "pid": (2, "int")},
}

_BY_NUMBER = {
    message: {number: (name, kind) for name, (number, kind) in fields.items()}
    for message, fields in MESSAGES.items()
}
_REPEATED = "repeated "


def encode(message: str, values: Mapping[str, Any]) -> bytes:
    """Return the bytes of a message. None means absent; a `Value` field given as None is written, empty.

    Raises WireError for a field the message does not have or a value of the wrong type.
    """
    fields = MESSAGES[message]
    out: list[bytes] = []
    for name, value in values.items():
        if name not in fields:
            raise WireError(f"{message} has no field {name}")
        number, kind = fields[name]
        if kind.startswith(_REPEATED):
            out.extend(_encode_field(number, kind.removeprefix(_REPEATED), item) for item in value or ())
        elif value is not None or kind == "Value":
            out.append(_encode_field(number, kind, value))
    return b"".join(out)


def decode(message: str, data: bytes) -> dict[str, Any]:
    """Return the fields that are present. Unknown ones are skipped; repeated ones are always there, as lists."""
    fields = _BY_NUMBER[message]
    out: dict[str, Any] = {name: [] for name, (_, kind) in MESSAGES[message].items() if kind.startswith(_REPEATED)}
    for number, wire_type, value in wire.iter_fields(data):
        if number not in fields:
            continue
        name, kind = fields[number]
        decoded = _decode_field(kind.removeprefix(_REPEATED), wire_type, value)
        if kind.startswith(_REPEATED):
            out[name].append(decoded)
        else:
            out[name] = decoded
    return out


def encode_whole(kind: str, value: Any) -> bytes:
    """Return a message by kind where `Struct`, `Value` and `ListValue` are plain Python values."""
    if kind == "Struct":
        return wire.encode_struct(value)
    if kind == "Value":
        return wire.encode_value(value)
    if kind == "ListValue":
        return wire.encode_list(value)
    return encode(kind, value)


def decode_whole(kind: str, data: bytes) -> Any:
    """Return the inverse of `encode_whole`."""
    if kind == "Struct":
        return wire.decode_struct(data)
    if kind == "Value":
        return wire.decode_value(data)
    if kind == "ListValue":
        return wire.decode_list(data)
    return decode(kind, data)


def _encode_field(number: int, kind: str, value: Any) -> bytes:
    try:
        if kind in ("int", "bool"):
            return wire.encode_varint(number << 3 | wire.VARINT) + wire.encode_varint(int(value))
        if kind == "double":
            return wire.encode_varint(number << 3 | wire.FIXED64) + wire.encode_double(value)
        if kind == "string":
            return wire.field(number, wire.text_bytes(value))
        if kind == "bytes":
            return wire.field(number, wire.text_bytes(value) if isinstance(value, str) else bytes(value))
        return wire.field(number, encode_whole(kind, value))
    except (TypeError, ValueError, AttributeError) as error:
        raise WireError(f"a {kind} cannot be made of a {type(value).__name__}") from error


def _decode_field(kind: str, wire_type: int, value: int | bytes) -> Any:
    if isinstance(value, int):
        if kind == "bool":
            return bool(value)
        if kind == "int":
            return value
    elif wire_type == wire.FIXED64 and kind == "double":
        return wire.decode_double(value)
    elif wire_type == wire.LENGTH and kind not in ("int", "bool", "double"):
        if kind == "string":
            return wire.bytes_text(value)
        return value if kind == "bytes" else decode_whole(kind, value)
    raise WireError(f"a {kind} came with wire type {wire_type}")
