"""Receipts: the signed word of the gateway about one decided call.

Text form, fields joined by `.` (none of them can hold one):

    1.<emitter>.<sequence>.<call number>.<decided_at_ms>.<account>.<key>.<product>.<mode>.<outcome>.<units>.<mac>

`emitter` is random and drawn by each process after fork, `sequence` counts within it: together they name the
call for ever, also when Redis was emptied and numbers calls anew. `call number` is what the limit script
returned for an admitted call (0 where nothing was admitted or Redis was away): the completeness check.
`mac` is the first 16 bytes of HMAC-SHA256, base64url without padding, over a *place* and the text before it.

The receipt that goes to the upstream and the one that goes back to the caller differ in place and so in MAC:
a caller who sends the receipt of an earlier answer as a request header cannot have it taken for ours.
"""

import base64
import hmac
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from gateway_contract.modes import Mode
from gateway_contract.outcomes import UNIDENTIFIED, Outcome

VERSION = "1"
FIELD_COUNT = 12
MAC_BYTES = 16
MAC_TEXT_LENGTH = (MAC_BYTES * 8 + 5) // 6  # base64 without padding
MAX_LENGTH = 512
MINIMUM_SECRET_LENGTH = 32
NOTE_PREFIX = "-."


class Place(StrEnum):
    """Where a receipt travels."""

    UPSTREAM = "u"
    ANSWER = "a"


class WeakSecretError(ValueError):
    """A gateway secret is missing or shorter than 32 characters."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """One decision on an identified call. `units` are quota units, 0 of a refused call.

    `decided_at_ms` is Redis time.
    """

    emitter: str
    sequence: int
    call_number: int
    decided_at_ms: int
    account_id: str
    key_id: str
    product: str
    mode: Mode
    outcome: Outcome
    units: int

    @property
    def event_id(self) -> str:
        """The id of the call's usage event: arrives twice, counts once."""
        return f"{self.emitter}-{self.sequence}"


def parse_secrets(text: str) -> tuple[bytes, ...]:
    """Split a comma-separated list of gateway secrets: the first signs, all verify (rotation).

    Raises:
        WeakSecretError: the list is empty or one of them is shorter than 32 characters.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or any(len(part) < MINIMUM_SECRET_LENGTH for part in parts):
        raise WeakSecretError(f"a gateway secret needs at least {MINIMUM_SECRET_LENGTH} characters")
    return tuple(part.encode() for part in parts)


def sign_receipt(receipt: Receipt, *, place: Place, secret: bytes) -> str:
    """Return the receipt's text for one place."""
    body = (
        f"{VERSION}.{receipt.emitter}.{receipt.sequence}.{receipt.call_number}.{receipt.decided_at_ms}."
        f"{receipt.account_id}.{receipt.key_id}.{receipt.product}.{receipt.mode.value}."
        f"{receipt.outcome.value}.{receipt.units}"
    )
    return f"{body}.{_mac(body, place, secret)}"


def verify_receipt(text: str, *, place: Place, secrets: tuple[bytes, ...]) -> Receipt | None:
    """Return the receipt if its MAC holds for that place under one of the secrets, else None."""
    if len(text) > MAX_LENGTH:
        return None
    body, _, mac = text.rpartition(".")
    parts = body.split(".")
    if len(parts) != FIELD_COUNT - 1 or parts[0] != VERSION:
        return None
    mac_bytes = mac.encode()  # compare_digest takes only ASCII text, and this text may come from anywhere
    if not any(hmac.compare_digest(_mac(body, place, secret).encode(), mac_bytes) for secret in secrets):
        return None
    return Receipt(
        emitter=parts[1],
        sequence=int(parts[2]),
        call_number=int(parts[3]),
        decided_at_ms=int(parts[4]),
        account_id=parts[5],
        key_id=parts[6],
        product=parts[7],
        mode=Mode(parts[8]),
        outcome=Outcome(parts[9]),
        units=int(parts[10]),
    )


def read_receipt(text: str) -> Receipt | None:
    """Return what a text says as a receipt, or None if it has not the form of one.

    The MAC is not looked at: this is for those who have no gateway secret. It proves nothing.
    """
    parts = text.split(".")
    if len(text) > MAX_LENGTH or len(parts) != FIELD_COUNT or parts[0] != VERSION:
        return None
    try:
        return Receipt(
            emitter=parts[1],
            sequence=int(parts[2]),
            call_number=int(parts[3]),
            decided_at_ms=int(parts[4]),
            account_id=parts[5],
            key_id=parts[6],
            product=parts[7],
            mode=Mode(parts[8]),
            outcome=Outcome(parts[9]),
            units=int(parts[10]),
        )
    except ValueError:
        return None


def refusal_note(outcome: Outcome) -> str:
    """Return what stands in the receipt header of a refusal that belongs to no account: `-.no_key`.

    Unsigned on purpose: it names a refusal, never an account, and is never billed.
    """
    return NOTE_PREFIX + outcome.value


def parse_refusal_note(text: str) -> Outcome | None:
    """Return the outcome of a refusal note, or None for anything else."""
    if not text.startswith(NOTE_PREFIX):
        return None
    try:
        outcome = Outcome(text.removeprefix(NOTE_PREFIX))
    except ValueError:
        return None
    return outcome if outcome in UNIDENTIFIED else None


def _mac(body: str, place: Place, secret: bytes) -> str:
    digest = hmac.digest(secret, f"{place.value}:{body}".encode(), sha256)
    return base64.urlsafe_b64encode(digest[:MAC_BYTES]).rstrip(b"=").decode()
