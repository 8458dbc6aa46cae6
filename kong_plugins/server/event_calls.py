"""Taking Kong's most frequent call apart without decoding it.

All events of one instance and phase differ in their sequence number only, and Kong wants that back as it came.
So the call without its number is a key to look a handler up with, and the number is the body of the answer.
"""

from typing import Final

from kong_plugins.server import messages, wire
from kong_plugins.server.errors import WireError

_EVENT_TAG: Final = wire.encode_varint(36 << 3 | wire.LENGTH)
_SEQUENCE_TAG: Final = 1 << 3 | wire.VARINT
_MORE: Final = 0x80


def split_event_call(frame: bytes) -> tuple[bytes, bytes] | None:
    """Return (the event's instance and phase, the encoded `RpcReturn`), both encoded.

    None where the frame is another call or is laid out in a way Kong does not use.
    """
    if frame[:2] == _EVENT_TAG and len(frame) > 3:  # noqa: PLR2004 - the tag, a length and something
        stop = 3 + frame[2]
        sequence = frame[stop:]
        if frame[2] < _MORE and _is_sequence(sequence):
            return frame[3:stop], sequence
    elif frame[:1] == b"\x08":
        at = frame.find(_EVENT_TAG, 2)
        if at > 0 and _is_sequence(frame[:at]) and len(frame) > at + 2 and len(frame) == at + 3 + frame[at + 2]:
            return frame[at + 3 :], frame[:at]
    return None


def decode_event_call(call: bytes) -> tuple[int, str]:
    """Return the instance id and the phase."""
    values = messages.decode("CmdHandleEvent", call)
    return values.get("instance_id", 0), values.get("event_name", "")


def join_event_call(values: dict[str, object], sequence: int) -> tuple[bytes, bytes]:
    """Return what `split_event_call` returns, from decoded values."""
    if "instance_id" not in values or "event_name" not in values:
        raise WireError("an event without instance or phase")
    return messages.encode("CmdHandleEvent", values), messages.encode("RpcReturn", {"sequence": sequence})


def _is_sequence(data: bytes) -> bool:
    """Say whether these bytes are exactly one varint field number 1."""
    size = len(data)
    if size == 2:  # noqa: PLR2004 - a small number
        return data[0] == _SEQUENCE_TAG and data[1] < _MORE
    if size < 2 or data[0] != _SEQUENCE_TAG:  # noqa: PLR2004 - no room for a number
        return False
    return all(byte >= _MORE for byte in data[1:-1]) and data[-1] < _MORE
