"""Calls in flight: one that has ended is taken out, so that its account may make another.

The limit script puts an admitted call in where the plan limits how many there may be at a time; the log phase
takes it out, however it ended: served, failed at the upstream, broken off. A call whose end nobody tells, or whose
release is lost on the way to Redis, leaves when its lease ends.
"""

import logging
from collections.abc import Mapping
from typing import Any

from gateway_contract.headers import RECEIPT
from gateway_contract.outcomes import Outcome
from gateway_contract.receipts import Place, Receipt, verify_receipt
from gateway_contract.redis_names import in_flight, slot_of
from kong_plugins.parts.redis_connection import RedisLinkError, encode_command
from kong_plugins.parts.redis_links import Link
from kong_plugins.server import metrics

log = logging.getLogger(__name__)

_RECEIPT_HEADER = RECEIPT.lower()
_releases = {
    result: metrics.counter(
        "km_gateway_in_flight_releases_total",
        {"result": result},
        help_text="ended calls taken out of those in flight",
    )
    # `not_there`: the plan limits no concurrency, or the lease had ended
    for result in ("released", "not_there", "lost")
}


def release_ended_call(link: Link, record: Mapping[str, Any], *, secrets: tuple[bytes, ...]) -> None:
    """Take the call that Kong's log is about out of those in flight. Repeating it is harmless; never raises.

    Waits for Redis' reply, a second at most, and not at all while Redis is away.
    """
    receipt = find_admission(record, secrets=secrets)
    if receipt is None:
        return
    name = in_flight(receipt.account_id, receipt.product, receipt.mode)
    member = f"{receipt.decided_at_ms}.{receipt.call_number}"
    try:
        removed = link.ask_one(encode_command("ZREM", name, member), slot_of(name))
    except RedisLinkError as error:
        _releases["lost"].inc()
        log.info("an ended call stays in flight until its lease ends: %s", error)
        return
    _releases["released" if removed else "not_there"].inc()


def find_admission(record: Mapping[str, Any], *, secrets: tuple[bytes, ...]) -> Receipt | None:
    """Return the receipt of the call, if it was admitted and numbered by Redis.

    The answer's receipt speaks, since a refused request may carry any receipt that its caller has seen. The
    request's one does only where the answer carries none at all.
    """
    texts, place = _texts(record, "response"), Place.ANSWER
    if not texts:
        texts, place = _texts(record, "request"), Place.UPSTREAM
    for text in texts:
        receipt = verify_receipt(text, place=place, secrets=secrets) if text.isascii() else None
        if receipt is not None and receipt.outcome is Outcome.SERVED and receipt.call_number:
            return receipt
    return None


def _texts(record: Mapping[str, Any], side: str) -> list[str]:
    """Return the receipts that stand in the headers of one side; an upstream may have added one to ours."""
    found = record.get(side)
    headers = found.get("headers") if isinstance(found, dict) else None
    value = headers.get(_RECEIPT_HEADER) if isinstance(headers, dict) else None
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]
