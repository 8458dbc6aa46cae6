"""Usage lines as the shipper sends them, decoded; nothing is judged here but their form."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from gateway_contract.api_keys import redact_api_keys
from gateway_contract.usage_lines import LINE_VERSION, MAX_PATH_LENGTH

# any line that a shipper writes fits
MAX_DEAD_TEXT = 16_384
NAMELESS = "-"

assert LINE_VERSION == 1, "UsageLine.v names the version that this module reads"  # noqa: S101 - a build error


class UsageLine(msgspec.Struct, frozen=True, gc=False):
    """One finished call, not yet attributed; fields as in `gateway_contract.usage_lines`.

    They stand in the order in which shippers write them: reading them in turn takes a third less.
    """

    v: Literal[1]
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    at: int
    ru: str = ""
    ra: str = ""
    sv: str = ""
    rt: str = ""
    m: str = ""
    p: str = ""
    st: int = 0
    so: str = ""
    bi: int = 0
    bo: int = 0
    lt: int = 0
    lk: int = 0
    lp: int = -1
    ip: str = ""
    u: dict[str, Any] = {}
    rp: str = ""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A line, or a whole stream entry, that cannot become an event, with the place it came from.

    Place and number name it for ever, so that a second delivery overwrites it. The text is redacted and cut.
    """

    shipper_id: str
    segment: str
    start_offset: int
    number: int
    reason: str
    text: str


_decoder = msgspec.json.Decoder(UsageLine)


def decode_lines(
    raw: bytes, *, shipper_id: str, segment: str, start_offset: int
) -> tuple[Sequence[UsageLine], list[DeadLetter]]:
    """Return the lines of one stream entry, in order, and those that cannot be read."""
    try:
        return _decoder.decode_lines(raw), []
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass  # one of them is bad: find out which
    lines: list[UsageLine] = []
    dead: list[DeadLetter] = []
    for number, text in enumerate(raw.split(b"\n")):
        if not text.strip():
            continue
        try:
            lines.append(_decoder.decode(text))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            dead.append(
                dead_letter(
                    reason=f"unreadable line: {error}",
                    raw=text,
                    shipper_id=shipper_id,
                    segment=segment,
                    start_offset=start_offset,
                    number=number,
                )
            )
    return lines, dead


def dead_letter(
    *, reason: str, raw: bytes, shipper_id: str = NAMELESS, segment: str, start_offset: int = 0, number: int = 0
) -> DeadLetter:
    """Return a dead letter with its text made safe to keep: readable, redacted, cut."""
    text = redact_api_keys(raw[: 2 * MAX_DEAD_TEXT].decode(errors="replace"))
    return DeadLetter(shipper_id, segment, start_offset, number, reason[:500], text[:MAX_DEAD_TEXT])


def encode_line(line: UsageLine) -> bytes:
    """Return the line's JSON again (for a dead letter that is found out late)."""
    return msgspec.json.encode(line)


__all__ = ["MAX_PATH_LENGTH", "DeadLetter", "UsageLine", "dead_letter", "decode_lines", "encode_line"]
