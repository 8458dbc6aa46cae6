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
# the fields up to the moment of the decision, which differ from call to call; the others repeat
_OWN_FIELDS = 5
_KNOWN_SUBJECTS = 32_768

# What many receipts have in common: account, key, mode, product, outcome, units.
Subject = tuple[str, str, str, str, str, int]
# What a receipt says: event id, time (ms), emitter, call number, subject.
Identity = tuple[str, int, str, int, Subject]


class ReceiptReader:
    """Reads receipts of one place under any of the gateway's secrets, without an object for each.

    Subjects that it met are kept, a bounded number, so that equal ones are one object. Nobody without a secret can
    add to them.
    """

    def __init__(self, secrets: tuple[bytes, ...], place: Place) -> None:
        self._hashes = []
        self._subjects: dict[str, Subject] = {}
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
        body, _, given_text = text.rpartition(".")
        raw, given = body.encode(), given_text.encode()
        for copy_inner, copy_outer in self._hashes:
            inner, outer = copy_inner(), copy_outer()
            inner.update(raw)
            outer.update(inner.digest())
            expected = _base64(outer.digest()[:MAC_BYTES], newline=False)
            if expected[:MAC_TEXT_LENGTH].translate(_URL_SAFE) == given:
                return self._identify(body)
        return None

    def _identify(self, body: str) -> Identity | None:
        """Judge the fields of a receipt whose MAC holds, as `attribution.is_sound` does."""
        fields = body.split(".", _OWN_FIELDS)
        if len(fields) <= _OWN_FIELDS or fields[0] != VERSION:
            return None
        _, emitter, sequence_text, number_text, decided_text, rest = fields
        try:
            sequence, number, decided_at_ms = int(sequence_text), int(number_text), int(decided_text)
            subject = self._subjects.get(rest) or self._learn(rest)
        except ValueError:
            return None
        if (
            EARLIEST_MS <= decided_at_ms < LATEST_MS
            and 0 <= sequence <= MAX_SEQUENCE
            and 0 <= number <= MAX_SEQUENCE
        ):
            return (f"{emitter}-{sequence}", decided_at_ms, emitter, number, subject)
        return None

    def _learn(self, rest: str) -> Subject:
        """Judge the fields that repeat.

        Raises:
            ValueError: no gateway writes them so.
        """
        fields = rest.split(".")
        if len(fields) != FIELD_COUNT - 1 - _OWN_FIELDS:
            raise ValueError(rest)
        account_id, key_id, product, mode, outcome, units_text = fields
        units = int(units_text)
        if not account_id or mode not in _MODES or outcome not in _OUTCOMES or not 0 <= units <= MAX_UNITS:
            raise ValueError(rest)
        if len(self._subjects) >= _KNOWN_SUBJECTS:
            self._subjects.clear()
        subject = (account_id, key_id, mode, product, outcome, units)
        self._subjects[rest] = subject
        return subject
