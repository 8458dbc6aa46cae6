"""A gateway's side of usage: calls as signed usage lines, shipped to the stream as the shipper does."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from redis.asyncio import Redis

from control_plane.foundation.clock import to_ms
from devstack.year.calls import Call
from gateway_contract import usage_lines
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.receipts import Place, Receipt, sign_receipt
from gateway_contract.redis_names import usage_stream

SECRET = b"the secret of a gateway that never was"
LINES_PER_ENTRY = 250
PRODUCT = "weather"


@dataclass(slots=True)
class Gateway:
    """One shipper with one endless segment. `keys`: the key id of each account. `entries`: not collected yet."""

    redis: Redis
    keys: dict[str, str] = field(default_factory=dict)
    position: int = 0
    entries: int = 0

    async def ship(self, calls: Sequence[Call]) -> None:
        """Add calls to the stream; every tenth entry twice, as after a lost answer."""
        for first in range(0, len(calls), LINES_PER_ENTRY):
            lines = b"\n".join(self._line(call) for call in calls[first : first + LINES_PER_ENTRY])
            start, self.position = self.position, self.position + len(lines) + 1
            await self._add(segment="seg-1", start=start, end=self.position, lines=lines)
            if (first // LINES_PER_ENTRY) % 10 == 0:
                await self._add(segment="seg-1", start=start, end=self.position, lines=lines)

    async def heartbeat(self, shipped_up_to: datetime) -> None:
        """Say that everything before that moment was shipped."""
        await self._add(shipped_up_to_ms=to_ms(shipped_up_to))

    async def _add(
        self, *, segment: str = "", start: int = 0, end: int = 0, lines: bytes = b"", shipped_up_to_ms: int = 0
    ) -> None:
        fields: Mapping[Any, Any] = {
            usage_lines.FIELD_SHIPPER: "node",
            usage_lines.FIELD_SEGMENT: segment,
            usage_lines.FIELD_START: start,
            usage_lines.FIELD_END: end,
            usage_lines.FIELD_SHIPPED_UP_TO_MS: shipped_up_to_ms,
            usage_lines.FIELD_DROPPED: 0,
            usage_lines.FIELD_LINES: lines,
        }
        await self.redis.xadd(usage_stream(0), dict(fields))
        self.entries += 1

    def _line(self, call: Call) -> bytes:
        receipt = Receipt(
            emitter="yearemitter",
            sequence=call.number,
            call_number=call.number,
            decided_at_ms=to_ms(call.at),
            account_id=call.account,
            key_id=self.keys[call.account],
            product=PRODUCT,
            mode=Mode.LIVE if call.live else Mode.TEST,
            outcome=Outcome.QUOTA_EXCEEDED if call.refused else Outcome.SERVED,
            units=0 if call.refused else call.units,
        )
        served = not call.refused
        line = {
            "v": 1,
            "id": f"{call.number:032x}",
            "at": to_ms(call.at),
            "ru": sign_receipt(receipt, place=Place.UPSTREAM, secret=SECRET) if served else "",
            "ra": sign_receipt(receipt, place=Place.ANSWER, secret=SECRET),
            "sv": PRODUCT,
            "rt": "bulk" if call.units > 1 else "weather",
            "m": "GET",
            "p": "/bulk" if call.units > 1 else "/weather/v1/current/oslo",
            "st": call.status,
            "so": "upstream" if served else "kong",
            "bi": 300,
            "bo": 1200,
            "lt": 12,
            "lk": 2,
            "lp": 10 if served else -1,
            "ip": "203.0.113.7",
            "u": {},
            "rp": "",
        }
        return json.dumps(line, separators=(",", ":")).encode()
