r"""The canonical form of one event in a digest. Pure; `digest_leaves.sql` writes the same bytes.

UTF-8 text: the line `km-usage-leaf-1`, then thirteen lines `name=value`, in this order, each ended by a line feed.
In values a backslash is written `\\`, a line feed `\n`, a carriage return `\r`. `dimensions` are `name:units`,
sorted by name and joined by commas; `flags` are those of `replayed`, `voided` that hold, in this order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from gateway_contract.receipts import Receipt

HEADING = "km-usage-leaf-1"
NAMES = (
    "event_id",
    "decided_at_ms",
    "account",
    "key",
    "mode",
    "product",
    "endpoint",
    "status",
    "outcome",
    "units",
    "dimensions",
    "call_number",
    "flags",
)


class LeafError(ValueError):
    """A text is not a leaf's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One event as a digest holds it: what its receipt says, and what it was billed by."""

    event_id: str
    decided_at_ms: int
    account: str
    key: str
    mode: str
    product: str
    endpoint: str
    status: int
    outcome: str
    units: int
    call_number: int
    dimensions: Mapping[str, int] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


def encode_leaf(leaf: Leaf) -> str:
    """Return the canonical text."""
    values = {name: getattr(leaf, name) for name in NAMES}
    values["dimensions"] = ",".join(
        f"{_escaped(name)}:{leaf.dimensions[name]}" for name in sorted(leaf.dimensions)
    )
    values["flags"] = ",".join(leaf.flags)
    lines = [f"{name}={value if name == 'dimensions' else _escaped(str(value))}" for name, value in values.items()]
    return "\n".join([HEADING, *lines, ""])


def decode_leaf(text: str) -> Leaf:
    """Read a canonical text.

    Raises:
        LeafError: it is not one, or not written as `encode_leaf` writes it.
    """
    lines = text.split("\n")
    if lines[0] != HEADING or lines[-1] or len(lines) != len(NAMES) + 2:
        raise LeafError("not a leaf of this version")
    values = {}
    for name, line in zip(NAMES, lines[1:], strict=False):
        found, equals, value = line.partition("=")
        if found != name or not equals:
            raise LeafError(f"{name} is missing")
        values[name] = value
    try:
        pairs = [pair.rpartition(":") for pair in values["dimensions"].split(",") if pair]
        leaf = Leaf(
            event_id=_plain(values["event_id"]),
            decided_at_ms=int(values["decided_at_ms"]),
            account=_plain(values["account"]),
            key=_plain(values["key"]),
            mode=values["mode"],
            product=_plain(values["product"]),
            endpoint=_plain(values["endpoint"]),
            status=int(values["status"]),
            outcome=values["outcome"],
            units=int(values["units"]),
            call_number=int(values["call_number"]),
            dimensions={_plain(name): int(units) for name, _, units in pairs},
            flags=tuple(flag for flag in values["flags"].split(",") if flag),
        )
    except ValueError as error:
        raise LeafError(str(error)) from error
    if encode_leaf(leaf) != text:
        raise LeafError("not in canonical form")
    return leaf


def hash_leaf(text: str) -> bytes:
    """Return SHA-256(0x00 || text)."""
    return sha256(b"\x00" + text.encode()).digest()


def differences_from_receipt(leaf: Leaf, receipt: Receipt) -> list[str]:
    """Return which fields of a leaf are not what the receipt says, as `name: receipt, usage`."""
    said = {
        "event_id": receipt.event_id,
        "decided_at_ms": receipt.decided_at_ms,
        "account": receipt.account_id,
        "key": receipt.key_id,
        "mode": receipt.mode.value,
        "product": receipt.product,
        "outcome": receipt.outcome.value,
        "units": receipt.units,
        "call_number": receipt.call_number,
    }
    return [
        f"{name}: {value} by the receipt, {getattr(leaf, name)} in usage"
        for name, value in said.items()
        if getattr(leaf, name) != value
    ]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def _plain(text: str) -> str:
    parts = text.split("\\\\")
    return "\\".join(part.replace("\\n", "\n").replace("\\r", "\r") for part in parts)
