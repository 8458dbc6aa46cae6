"""Receipts of this process: its emitter, its sequence, both signatures.

The same bytes as `gateway_contract.receipts.sign_receipt`, at a third of the cost: the HMAC key is prepared
once, and what is constant for a caller is joined once.
"""

import secrets
from base64 import urlsafe_b64encode
from hashlib import sha256

from gateway_contract.api_keys import BASE62
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.receipts import MAC_BYTES, VERSION, Place

EMITTER_LENGTH = 12
_BLOCK_BYTES = 64
_UPSTREAM = f"{Place.UPSTREAM.value}:".encode()
_ANSWER = f"{Place.ANSWER.value}:".encode()


def receipt_tail(*, account_id: str, key_id: str, product: str, mode: Mode, outcome: Outcome, units: int) -> str:
    """Return the part of a receipt that says whose call it is and what was decided."""
    return f".{account_id}.{key_id}.{product}.{mode.value}.{outcome.value}.{units}"


class ReceiptSigner:
    """Make it after fork: two processes with one emitter would name different calls alike."""

    def __init__(self, secret: bytes) -> None:
        self.emitter = "".join(secrets.choice(BASE62) for _ in range(EMITTER_LENGTH))
        self._head = f"{VERSION}.{self.emitter}."
        self._sequence = 0
        key = sha256(secret).digest() if len(secret) > _BLOCK_BYTES else secret
        key = key.ljust(_BLOCK_BYTES, b"\0")
        self._inner = sha256(bytes(byte ^ 0x36 for byte in key))
        self._outer = sha256(bytes(byte ^ 0x5C for byte in key))

    def sign_both(self, *, call_number: int, decided_at_ms: int, tail: str) -> tuple[str, str]:
        """Return the next receipt for the upstream and for the answer."""
        self._sequence += 1
        body = f"{self._head}{self._sequence}.{call_number}.{decided_at_ms}{tail}"
        data = body.encode()
        return f"{body}.{self._mac(_UPSTREAM + data)}", f"{body}.{self._mac(_ANSWER + data)}"

    def sign_answer(self, *, decided_at_ms: int, tail: str) -> str:
        """Return the next receipt for the answer to a refused call, which has no call number."""
        self._sequence += 1
        body = f"{self._head}{self._sequence}.0.{decided_at_ms}{tail}"
        return f"{body}.{self._mac(_ANSWER + body.encode())}"

    def _mac(self, data: bytes) -> str:
        inner = self._inner.copy()
        inner.update(data)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return urlsafe_b64encode(outer.digest()[:MAC_BYTES])[:-2].decode()
