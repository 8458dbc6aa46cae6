"""The messages of Kong's plugin protocol, package `kong_plugin_protocol`, made without a compiler.

Deliberately apart from the plugin server's own codec, and on Google's library: what one side writes wrongly,
the other must not read rightly by the same mistake.
"""

from collections.abc import Callable
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, empty_pb2, message_factory, struct_pb2
from google.protobuf.message import Message

PACKAGE = "kong_plugin_protocol"

_TYPES = {"string": 9, "bytes": 12, "bool": 8, "int32": 5, "int64": 3, "double": 1}
_DATED = "id=1 created_at=2:int64 updated_at=3:int64 name=4"

# field=number[:type][*]; the default type is string, a capital letter names a message, * means repeated
_MESSAGES = {
    "CmdGetPluginNames": "",
    "CmdGetPluginInfo": "name=1",
    "CmdStartInstance": "name=1 config=2:bytes",
    "CmdGetInstanceStatus": "instance_id=1:int32",
    "CmdCloseInstance": "instance_id=1:int32",
    "CmdHandleEvent": "instance_id=1:int32 event_name=2",
    "RpcCall": "sequence=1:int64 | cmd_get_plugin_names=31:CmdGetPluginNames"
    " cmd_get_plugin_info=32:CmdGetPluginInfo cmd_start_instance=33:CmdStartInstance"
    " cmd_get_instance_status=34:CmdGetInstanceStatus cmd_close_instance=35:CmdCloseInstance"
    " cmd_handle_event=36:CmdHandleEvent",
    "PluginNames": "names=1*",
    "PluginInfo": "name=1 updated_at=2:int64 loaded_at=3:int64 phases=4* version=5 priority=6:int32 schema=7",
    "InstanceStatus": "name=1 instance_id=2:int32 config=3:Value started_at=4:int64",
    "RpcReturn": "sequence=1:int64 | plugin_names=31:PluginNames plugin_info=32:PluginInfo"
    " instance_status=33:InstanceStatus",
    "KV": "k=1 v=2:Value",
    "Bool": "v=1:bool",
    "Int": "v=1:int32",
    "Number": "v=1:double",
    "String": "v=1",
    "ByteString": "v=1:bytes",
    "ExitArgs": "status=1:int32 body=2:bytes headers=3:Struct",
    "ServiceKey": "id=1",
    "CertificateKey": "id=1",
    "RawBodyResult": "| content=1:bytes body_filepath=2 error=3",
    "Route": f"{_DATED} protocols=5* methods=6* hosts=7* paths=8* headers=9*"
    " https_redirect_status_code=10:int32 regex_priority=11:int32 strip_path=12:bool preserve_host=13:bool"
    " snis=14* sources=15* destinations=16* tags=17* service=18:ServiceKey",
    "Service": f"{_DATED} retries=5:int32 protocol=6 host=7 port=8:int32 path=9 connect_timeout=10:int32"
    " write_timeout=11:int32 read_timeout=12:int32 tags=13* client_certificate=14:CertificateKey",
    "Target": "host=1 port=2:int32",
    "ConsumerSpec": "id=1 by_username=2:bool",
    "Consumer": "id=1 created_at=2:int64 username=3 custom_id=4 tags=5*",
    "AuthenticatedCredential": "id=1 consumer_id=2",
    "AuthenticateArgs": "consumer=1:Consumer credential=2:AuthenticatedCredential",
}
_STRUCT_TYPES = frozenset({"Value", "Struct", "ListValue"})


def _field(spec: str) -> descriptor_pb2.FieldDescriptorProto:
    name, _, rest = spec.removesuffix("*").partition("=")
    number, _, kind = rest.partition(":")
    field = descriptor_pb2.FieldDescriptorProto(name=name, number=int(number))
    field.label = (
        descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
        if spec.endswith("*")
        else descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
    )
    kind = kind or "string"
    if kind in _TYPES:
        field.type = _TYPES[kind]  # type: ignore[assignment]
    else:
        field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".google.protobuf.{kind}" if kind in _STRUCT_TYPES else f".{PACKAGE}.{kind}"
    return field


def _describe() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="kong_pluginsocket.proto", package=PACKAGE, syntax="proto3")
    file.dependency.append("google/protobuf/struct.proto")
    for name, specs in _MESSAGES.items():
        message = file.message_type.add(name=name)
        plain, _, choices = specs.partition("|")
        message.field.extend(_field(spec) for spec in plain.split())
        if choices:
            message.oneof_decl.add(name="choice")
            for spec in choices.split():
                field = _field(spec)
                field.oneof_index = 0
                message.field.append(field)
    return file


def _classes() -> dict[str, Callable[..., Any]]:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(_describe().SerializeToString())
    found = {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        for name in _MESSAGES
    }
    for name in _STRUCT_TYPES:
        found[name] = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"google.protobuf.{name}"))
    return {**found, "Empty": empty_pb2.Empty}


_CLASSES = _classes()


def new(message: str, **fields: Any) -> Any:
    return _CLASSES[message](**fields)


def field_names(message: str) -> frozenset[str]:
    return frozenset(_CLASSES[message].DESCRIPTOR.fields_by_name)  # type: ignore[attr-defined]


def parse(message: str, data: bytes) -> Any:
    """Raises google.protobuf.message.DecodeError."""
    return _CLASSES[message].FromString(data)  # type: ignore[attr-defined]


def plain_value(value: Any) -> Any:
    """A `Value` as Lua sees it: numbers are doubles, and `false` is read as nothing (Kong's reader drops it)."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return plain_struct(value.struct_value)
    if kind == "list_value":
        return [plain_value(item) for item in value.list_value.values]
    if kind in {None, "null_value"}:
        return None
    found = getattr(value, kind)
    return None if found is False else found


def plain_struct(struct: Any) -> dict[str, Any]:
    return {name: plain_value(value) for name, value in struct.fields.items()}


def fill_value(target: Any, value: Any) -> None:
    """Write a plain value into a `Value` as Kong does: an empty table is a struct."""
    if value is None:
        # Kong writes 1, a number the enumeration does not have
        target.null_value = 1
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int | float):
        target.number_value = value
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, list) and value:
        for item in value:
            fill_value(target.list_value.values.add(), item)
    else:
        target.struct_value.SetInParent()
        for name, item in dict(value).items():
            fill_value(target.struct_value.fields[name], item)


def struct_of(values: dict[str, Any]) -> Message:
    struct: Any = new("Struct")
    for name, value in values.items():
        fill_value(struct.fields[name], value)
    return struct  # type: ignore[no-any-return]
