"""Receipts read in bulk: the same HMAC as `gateway_contract.receipts`, its key work done once."""

from binascii import b2a_base64 as _base64
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

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
_MAC_END = MAC_TEXT_LENGTH + 1
_PADDING, _PADDING_TEXT = b"\0\0", "AA"
_Copy = Callable[[], Any]

# What many receipts have in common: account, key, mode, product, outcome, units.
Subject = tuple[str, str, str, str, str, int]
# What a receipt says: event id, time (ms), emitter, call number, subject.
Identity = tuple[str, int, str, int, Subject]


class ReceiptReader:
    """Reads receipts of one place under any of the gateway's secrets, many at once, without an object for each.

    Subjects that it met are kept, a bounded number, so that equal ones are one object. Nobody without a secret can
    add to them.
    """

    def __init__(self, secrets: tuple[bytes, ...], place: Place) -> None:
        self._hashes: list[tuple[_Copy, _Copy]] = []
        self._subjects: dict[str, Subject] = {}
        for secret in secrets:
            key = (sha256(secret).digest() if len(secret) > _BLOCK_BYTES else secret).ljust(_BLOCK_BYTES, b"\0")
            # HMAC is two hashes; the state after the key (and the place) is the same for every receipt
            inner = sha256(key.translate(_INNER) + f"{place.value}:".encode())
            self._hashes.append((inner.copy, sha256(key.translate(_OUTER)).copy))

    def read(self, texts: Sequence[str]) -> list[Identity | None]:
        """Return what each receipt says if its MAC holds and the gateway writes such receipts, else None.

        Compared in plain: nobody learns when a line was found false, let alone how long it took.
        """
        found: list[Identity | None] = [None] * len(texts)
        rows = [
            row for row, text in enumerate(texts) if _MAC_END < len(text) <= MAX_LENGTH and text[-_MAC_END] == "."
        ]
        for copies in self._hashes:
            if not rows:
                break
            bodies = [texts[row][:-_MAC_END] for row in rows]
            given = [texts[row][-MAC_TEXT_LENGTH:] for row in rows]
            true = _which_hold(bodies, given, *copies)
            left: list[int] = []
            if true is None:
                identities = self._identify_all(bodies)
                if len(rows) == len(texts):
                    return list(identities)
            else:
                identities = self._identify_all([body for body, holds in zip(bodies, true, strict=True) if holds])
                left = [row for row, holds in zip(rows, true, strict=True) if not holds]
                rows = [row for row, holds in zip(rows, true, strict=True) if holds]
            for row, identity in zip(rows, identities, strict=True):
                found[row] = identity
            rows = left
        return found

    def _identify_all(self, bodies: Sequence[str]) -> Sequence[Identity | None]:
        """Judge receipts whose MAC holds, as `attribution.is_sound` does: together if all of them are sound."""
        if not bodies:
            return []
        try:
            fields = zip(*[body.split(".", _OWN_FIELDS) for body in bodies], strict=True)
            versions, emitters, sequence_texts, number_texts, decided_texts, rests = fields
            sequences, numbers = list(map(int, sequence_texts)), list(map(int, number_texts))
            decided = list(map(int, decided_texts))
            known = self._subjects
            subjects = [known.get(rest) or self._learn(rest) for rest in rests]
        except ValueError:
            return [self._identify(body) for body in bodies]
        if not (
            min(decided) >= EARLIEST_MS
            and max(decided) < LATEST_MS
            and min(sequences) >= 0
            and max(sequences) <= MAX_SEQUENCE
            and min(numbers) >= 0
            and max(numbers) <= MAX_SEQUENCE
            and versions.count(VERSION) == len(versions)
        ):
            return [self._identify(body) for body in bodies]
        event_ids = [f"{emitter}-{sequence}" for emitter, sequence in zip(emitters, sequences, strict=True)]
        return list(zip(event_ids, decided, emitters, numbers, subjects, strict=True))

    def _identify(self, body: str) -> Identity | None:
        """Judge one receipt among which some are not sound."""
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


def _which_hold(
    bodies: Sequence[str], given: Sequence[str], copy_inner: _Copy, copy_outer: _Copy
) -> list[bool] | None:
    """Say whose MAC is the given one; None if all are."""
    digests = []
    for body in bodies:
        inner, outer = copy_inner(), copy_outer()
        inner.update(body.encode())
        outer.update(inner.digest())
        digests.append(outer.digest()[:MAC_BYTES])
    # with two zero bytes each makes whole groups of base64: one call writes them all
    raw = _base64(_PADDING.join(digests) + _PADDING, newline=False).translate(_URL_SAFE)
    expected = raw.decode()
    if expected == _PADDING_TEXT.join(given) + _PADDING_TEXT:
        return None
    step = MAC_TEXT_LENGTH + len(_PADDING_TEXT)
    return [expected[at * step : at * step + MAC_TEXT_LENGTH] == text for at, text in enumerate(given)]
