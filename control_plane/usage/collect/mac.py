"""Receipts read in bulk: the same HMAC as `gateway_contract.receipts`, its key work done once."""

from binascii import b2a_base64 as _base64
from hashlib import sha256

from control_plane.usage.model import EARLIEST_MS, LATEST_MS, MAX_SEQUENCE, MAX_UNITS
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.receipts import FIELD_COUNT, MAC_BYTES, MAC_TEXT_LENGTH, MAX_LENGTH, VERSION, Place

_BLOCK_BYTES = 64
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_MODES = frozenset(mode.value for mode in Mode)
_OUTCOMES = frozenset(outcome.value for outcome in Outcome)

# What a receipt says: event id, time (ms), account, key, mode, product, outcome, units, emitter, call number.
Identity = tuple[str, int, str, str, str, str, str, int, str, int]


class ReceiptReader:
    """Reads receipts of one place under any of the gateway's secrets, without an object for each."""

    def __init__(self, secrets: tuple[bytes, ...], place: Place) -> None:
        self._hashes = []
        for secret in secrets:
            key = (sha256(secret).digest() if len(secret) > _BLOCK_BYTES else secret).ljust(_BLOCK_BYTES, b"\0")
            # HMAC is two hashes; the state after the key (and the place) is the same for every receipt
            inner = sha256(key.translate(_INNER) + f"{place.value}:".encode())
            self._hashes.append((inner.copy, sha256(key.translate(_OUTER)).copy))

    def read(self, text: str) -> Identity | None:
        """Return what the receipt says if its MAC holds and the gateway writes such receipts, else None.

        Compared in plain: nobody learns when a line was found false, let alone how long it took.
        """
        if len(text) > MAX_LENGTH:
            return None
        fields = text.split(".")
        if len(fields) != FIELD_COUNT or fields[0] != VERSION or len(fields[-1]) != MAC_TEXT_LENGTH:
            return None
        raw, given = text[: -MAC_TEXT_LENGTH - 1].encode(), fields[-1].encode()
        for copy_inner, copy_outer in self._hashes:
            inner, outer = copy_inner(), copy_outer()
            inner.update(raw)
            outer.update(inner.digest())
            expected = _base64(outer.digest()[:MAC_BYTES], newline=False)
            if expected[:MAC_TEXT_LENGTH].translate(_URL_SAFE) == given:
                return _identify(fields)
        return None


def _identify(fields: list[str]) -> Identity | None:
    """Judge the fields of a receipt whose MAC holds, as `attribution.is_sound` does."""
    (
        _,
        emitter,
        sequence_text,
        number_text,
        decided_text,
        account_id,
        key_id,
        product,
        mode,
        outcome,
        units_text,
        _,
    ) = fields
    try:
        sequence, number, decided_at_ms, units = (
            int(sequence_text),
            int(number_text),
            int(decided_text),
            int(units_text),
        )
    except ValueError:
        return None
    if (
        EARLIEST_MS <= decided_at_ms < LATEST_MS
        and 0 <= sequence <= MAX_SEQUENCE
        and 0 <= number <= MAX_SEQUENCE
        and 0 <= units <= MAX_UNITS
        and account_id
        and mode in _MODES
        and outcome in _OUTCOMES
    ):
        event_id = f"{emitter}-{sequence}"
        return (event_id, decided_at_ms, account_id, key_id, mode, product, outcome, units, emitter, number)
    return None
