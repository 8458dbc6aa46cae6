"""Whether a shipper's messages came without one missing (`gateway_contract.kafka` says how they are numbered)."""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway_contract.kafka import FIELD_AFTER, FIELD_EPOCH, FIELD_NUMBER

MAX_EPOCH_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Sent:
    """What a message says of its place among its shipper's messages."""

    epoch: str
    number: int
    after: int


@dataclass(frozen=True, slots=True)
class Reached:
    """Every message of the epoch up to this number that brokers confirmed has been collected."""

    epoch: str
    number: int

    def text(self) -> str:
        return f"{self.epoch}:{self.number}"


def read_sent(fields: Mapping[bytes, bytes]) -> Sent | None:
    """Read a message's fields; None where no shipper of ours has written them."""
    try:
        epoch = fields[FIELD_EPOCH.encode()].decode()
        number, after = (int(fields[name.encode()]) for name in (FIELD_NUMBER, FIELD_AFTER))
    except (KeyError, ValueError):
        return None
    return Sent(epoch, number, after) if len(epoch) <= MAX_EPOCH_LENGTH and 0 <= after < number else None


def read_reached(text: str | None) -> Reached | None:
    """Read what `Reached.text` has written; None where it is not there, or is something else."""
    epoch, _, number = (text or "").rpartition(":")
    return Reached(epoch, int(number)) if number.isdigit() else None


def follow(reached: Reached | None, sent: Sent) -> Reached | None:
    """Return how far this message brings us; None: something before it is missing, or was never known."""
    known = reached.number if reached is not None and reached.epoch == sent.epoch else 0
    return Reached(sent.epoch, max(known, sent.number)) if sent.after <= known else None
