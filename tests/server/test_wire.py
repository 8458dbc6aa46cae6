"""The codec against what the real Kong 3.9.3 and a prototype server wrote, and against the protobuf runtime."""

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from kong_plugins.server import messages, wire
from kong_plugins.server.errors import WireError
from kong_plugins.server.event_calls import split_event_call
from kong_plugins.server.methods import ARGUMENT_AND_RESULT
from kong_plugins.server.pdk import Kong
from kong_plugins.server.pdk.response import encode_exit

RECORDING = Path(__file__).parents[1] / "contract/kong/wire-protobuf-kong-3.9.3.jsonl"
LINES = [json.loads(line) for line in RECORDING.read_text().splitlines()]
WELL_KNOWN = {"Struct": struct_pb2.Struct, "Value": struct_pb2.Value, "ListValue": struct_pb2.ListValue}
_TYPES = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    "string": _TYPES.TYPE_STRING,
    "bytes": _TYPES.TYPE_BYTES,
    "int": _TYPES.TYPE_INT64,
    "bool": _TYPES.TYPE_BOOL,
    "double": _TYPES.TYPE_DOUBLE,
}


def _runtime_classes() -> dict[str, Any]:
    """The messages as the protobuf runtime knows them."""
    file = descriptor_pb2.FileDescriptorProto(name="kong_test.proto", package="kong_test", syntax="proto2")
    file.dependency.append("google/protobuf/struct.proto")
    for name, fields in messages.MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            bare = kind.removeprefix("repeated ")
            field = message.field.add(name=field_name, number=number)
            field.label = _TYPES.LABEL_REPEATED if kind != bare else _TYPES.LABEL_OPTIONAL
            field.type = SCALARS.get(bare, _TYPES.TYPE_MESSAGE)
            if bare not in SCALARS:
                package = "google.protobuf" if bare in WELL_KNOWN else "kong_test"
                field.type_name = f".{package}.{bare}"
    pool = descriptor_pool.DescriptorPool()
    struct_file = descriptor_pb2.FileDescriptorProto()
    struct_pb2.DESCRIPTOR.CopyToProto(struct_file)
    pool.Add(struct_file)
    pool.Add(file)
    packages = {
        name: "google.protobuf" if name in WELL_KNOWN else "kong_test"
        for name in [*messages.MESSAGES, *WELL_KNOWN]
    }
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name, package in packages.items()
    }


RUNTIME = _runtime_classes()


def runtime(kind: str, data: bytes) -> Any:
    return RUNTIME[kind].FromString(data)


def frames(raw: bytes) -> list[bytes]:
    out = []
    while raw:
        size = struct.unpack_from("<I", raw)[0]
        out.append(raw[4 : 4 + size])
        raw = raw[4 + size :]
    return out


def conversation() -> list[tuple[str, str, bytes]]:
    """(who, kind of message, payload) of every frame of the recording."""
    out = []
    pending = None
    for line in LINES:
        if "pdk_call" in line:
            pending = line["pdk_call"]
            out.append(("server", ARGUMENT_AND_RESULT[pending][0], bytes.fromhex(line["args_hex"])))
        elif line["from"] == "kong":
            kind = ARGUMENT_AND_RESULT[pending][1] if pending else "RpcCall"
            out.append(("kong", kind, bytes.fromhex(line["frame_hex"])))
            pending = None
        elif pending is None and "raw_hex" in line:
            first, *rest = frames(bytes.fromhex(line["raw_hex"]))
            kind = ARGUMENT_AND_RESULT[first.decode()][0] if first.startswith(b"kong.") else "RpcReturn"
            out.extend(("server", kind, payload) for payload in (rest or [first]))
    return out


class TestRecordedConversation:
    def test_is_read_whole(self):
        assert len(LINES) == 222
        assert sum(who == "kong" for who, _, _ in conversation()) == sum(line["from"] == "kong" for line in LINES)

    @pytest.mark.parametrize(("who", "kind", "payload"), conversation())
    def test_every_message_decodes_and_encodes_to_the_same(self, who: str, kind: str, payload: bytes):
        values = messages.decode_whole(kind, payload)
        if payload == b"\x08\x01" and kind == "Value":
            assert values is None  # Kong's nil, which we never write that way
        else:
            assert runtime(kind, messages.encode_whole(kind, values)) == runtime(kind, payload)

    def test_every_method_name_written_is_a_known_frame(self):
        for line in LINES:
            if line["from"] == "plugin_server" and "raw_hex" in line:
                parts = frames(bytes.fromhex(line["raw_hex"]))
                if parts[0] and parts[0].startswith(b"kong."):
                    assert parts[0].decode() in ARGUMENT_AND_RESULT

    def test_every_event_call_splits_into_key_and_answer(self):
        answers = []
        for _, kind, payload in conversation():
            if kind == "RpcCall" and "cmd_handle_event" in (call := messages.decode(kind, payload)):
                key, answer = split_event_call(payload)
                assert messages.decode("CmdHandleEvent", key) == call["cmd_handle_event"]
                assert messages.decode("RpcReturn", answer) == {"sequence": call["sequence"]}
                answers.append(answer)
        written = {p for line in LINES if "raw_hex" in line for p in frames(bytes.fromhex(line["raw_hex"]))}
        refused = sum(line.get("close", False) for line in LINES)
        assert sum(answer in written for answer in answers) == len(answers) - refused


class ReplayedKong:
    """A channel that answers with the recording and insists on its questions."""

    def __init__(self) -> None:
        self.expected: list[tuple[str, bytes, bytes]] = []
        for number, line in enumerate(LINES):
            if "pdk_call" in line:
                reply = next(one for one in LINES[number:] if one["from"] == "kong")
                self.expected.append(
                    (line["pdk_call"], bytes.fromhex(line["args_hex"]), bytes.fromhex(reply["frame_hex"]))
                )

    def call(self, method: Any, argument: bytes) -> bytes:
        name, expected, reply = self.expected.pop(0)
        assert method.name == name
        kind = ARGUMENT_AND_RESULT[name][0]
        assert runtime(kind, argument) == runtime(kind, expected)
        return reply


class TestKongObject:
    def test_asks_what_was_recorded_and_reads_the_answers(self):
        channel = ReplayedKong()
        kong = Kong(channel)
        while channel.expected:
            name, raw, reply = channel.expected[0]
            kind, result = ARGUMENT_AND_RESULT[name]
            argument = messages.decode_whole(kind, raw)
            method: Any = kong
            for part in name.split(".")[1:]:
                method = getattr(method, part)
            if kind in ("KV", "AuthenticateArgs"):
                got = method(*argument.values())
            else:
                got = method(*([argument] if kind == "Struct" else argument.values()))
            expected = messages.decode_whole(result, reply)
            if result == "String":
                assert got == expected.get("v")
            elif result != "Empty":
                assert got == expected

    def test_takes_consumers_as_mappings_or_objects(self):
        sent = []

        class Channel:
            def call(self, method: Any, argument: bytes) -> bytes:
                sent.append(argument)
                return b""

        class Consumer:
            id = "c1"
            username = "é"
            tags = ("a", "b")

        kong = Kong(Channel())
        kong.client.authenticate(Consumer(), {"id": "k1", "consumer_id": "c1", "other": 1})
        kong.client.authenticate(
            {"id": "c1", "username": "é", "tags": ["a", "b"], "x": 1}, {"id": "k1", "consumer_id": "c1"}
        )
        assert sent[0] == sent[1]
        assert runtime("AuthenticateArgs", sent[0]).consumer.username == "é"
        for name in ("Ann", "A" * 127, "A" * 128, "A" * 20_000, 17):
            kong.client.authenticate({"id": "c1", "username": name, "custom_id": None}, {"id": "k1"})
            consumer = runtime("AuthenticateArgs", sent[-1]).consumer
            assert (consumer.id, consumer.username, consumer.custom_id) == ("c1", str(name), "")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


class TestStruct:
    @given(st.dictionaries(TEXT, JSON, max_size=20))
    def test_comes_back_as_it_went(self, values: dict[str, Any]):
        assert wire.decode_struct(wire.encode_struct(values)) == values

    @given(st.dictionaries(TEXT, TEXT | st.lists(TEXT, max_size=3), max_size=20))
    def test_is_what_the_protobuf_runtime_reads_and_writes(self, values: dict[str, Any]):
        theirs = struct_pb2.Struct()
        theirs.update(values)
        assert struct_pb2.Struct.FromString(wire.encode_struct(values)) == theirs
        assert wire.decode_struct(theirs.SerializeToString()) == values

    @pytest.mark.parametrize(
        "size",
        [0, 1, 120, 121, 122, 123, 124, 127, 128, 16_120, 16_127, 16_128, 16_380, 16_384, 200_000, 2_100_000],
    )
    def test_carries_values_of_any_length(self, size: int):
        for values in ({"a": "x" * size, "c": "z"}, {"a": "x" * size, "b" * size: "y", "c": "é"}):
            theirs = struct_pb2.Struct.FromString(wire.encode_struct(values))
            assert dict(theirs) == values
            assert wire.decode_struct(wire.encode_struct(values)) == values

    def test_keeps_header_bytes_that_are_no_text(self):
        raw = b"caf\xe9 \xff".decode("utf-8", "surrogateescape")
        encoded = wire.encode_struct({"x-raw": raw})
        assert b"caf\xe9 \xff" in encoded
        assert wire.decode_struct(encoded) == {"x-raw": raw}

    def test_gives_integral_numbers_back_as_int(self):
        values = wire.decode_struct(wire.encode_struct({"a": 3.0, "b": 2.5, "c": -7, "d": 1e300}))
        assert [type(values[key]) for key in "abcd"] == [int, float, int, float]

    def test_sends_none_as_an_empty_value_and_reads_kongs_nil(self):
        assert wire.encode_value(None) == b""
        assert wire.decode_value(b"\x08\x01") is None

    @given(st.binary(max_size=200))
    def test_never_fails_but_with_a_wire_error(self, data: bytes):
        for decode in (wire.decode_struct, wire.decode_value, lambda one: messages.decode("RpcCall", one)):
            with contextlib.suppress(WireError):
                decode(data)
        split_event_call(data)

    def test_refuses_what_nests_without_end(self):
        nested: list[Any] = []
        nested.append(nested)
        with pytest.raises(WireError):
            wire.encode_struct({"a": nested})
        deep = b""
        for _ in range(2000):
            deep = wire.field(6, wire.field(1, deep))
        with pytest.raises(WireError):
            wire.decode_value(deep)


class TestEventCall:
    @given(
        instance=st.integers(1, 2**31 - 1),
        phase=st.sampled_from(["access", "log", "rewrite"]),
        sequence=st.integers(1, 2**40),
        first=st.booleans(),
    )
    def test_splits_with_the_number_before_or_behind(
        self, instance: int, phase: str, sequence: int, *, first: bool
    ):
        event = {"instance_id": instance, "event_name": phase}
        call = messages.encode("RpcCall", {"cmd_handle_event": event})
        number = messages.encode("RpcReturn", {"sequence": sequence})
        key, answer = split_event_call(number + call if first else call + number)
        assert messages.decode("CmdHandleEvent", key) == event
        assert messages.decode("RpcReturn", answer) == {"sequence": sequence}

    def test_leaves_other_calls_alone(self):
        other = messages.encode("RpcCall", {"sequence": 5, "cmd_close_instance": {"instance_id": 3}})
        assert split_event_call(other) is None
        assert split_event_call(b"") is None


class TestExit:
    def test_sends_a_mapping_as_json(self):
        sent = runtime("ExitArgs", encode_exit(429, {"a": 1}, {"Retry-After": "7"}))
        assert (sent.status, json.loads(sent.body)) == (429, {"a": 1})
        assert sent.headers["Content-Type"].startswith("application/json")

    def test_keeps_a_content_type_given_in_any_case(self):
        sent = runtime("ExitArgs", encode_exit(400, {"a": 1}, {"content-type": "application/problem+json"}))
        assert dict(sent.headers) == {"content-type": "application/problem+json"}
