"""`POST /webhooks/stripe` and `POST /webhooks/stripe/thin`: verified, stored once, answered.

Nothing is acted on here: a 200 says that the event is stored, whatever becomes of it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import structlog
from fastapi import APIRouter, Request
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from control_plane.foundation.clock import utc_now
from control_plane.foundation.errors import KmError
from control_plane.stripe_sync.events import metrics
from control_plane.stripe_sync.events.inbox import store_delivered
from control_plane.stripe_sync.events.model import Form, Told, WrongEventError, parse_event
from control_plane.stripe_sync.events.signatures import WrongSignatureError, verify
from control_plane.webhooks.refusals import Refusals

MAX_BODY_BYTES: Final = 512 * 1024
READ_SECONDS: Final = 10.0
SIGNATURE_HEADER: Final = "stripe-signature"

log = structlog.stdlib.get_logger(__name__)


class WebhookRefusedError(KmError):
    """400: not signed by Stripe, or not what this endpoint takes."""

    def __init__(self, code: str, problem: str) -> None:
        super().__init__(code, f"This webhook is not taken: {problem}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhooksConfig:
    """The secrets of each endpoint: the newest, and those that it replaces. One without any is not there."""

    sessions: async_sessionmaker[AsyncSession]
    snapshot_secrets: tuple[str, ...] = field(default=(), repr=False)
    thin_secrets: tuple[str, ...] = field(default=(), repr=False)
    now: Callable[[], datetime] = utc_now


def stripe_webhooks(config: WebhooksConfig) -> APIRouter:
    """Return the two endpoints, for the application that has the handlers of our errors."""
    router = APIRouter(prefix="/webhooks/stripe", include_in_schema=False)
    refusals = Refusals()

    @router.post("")
    async def take_snapshot(request: Request) -> dict[str, bool]:
        return await _take(request, config, Form.SNAPSHOT, config.snapshot_secrets, refusals)

    @router.post("/thin")
    async def take_thin(request: Request) -> dict[str, bool]:
        return await _take(request, config, Form.THIN, config.thin_secrets, refusals)

    return router


async def _take(
    request: Request, config: WebhooksConfig, form: Form, secrets: tuple[str, ...], refusals: Refusals
) -> dict[str, bool]:
    """Answer 200 once the event is stored, now or before."""
    if not secrets:
        # nothing is ever verified against nothing
        raise HTTPException(404)
    now = config.now()
    try:
        body = await _read(request)
        verify(body, request.headers.get(SIGNATURE_HEADER, ""), secrets, now=now)
        told = parse_event(body, form)
    except HTTPException as error:
        metrics.WEBHOOKS.labels(form, f"refused_{error.status_code}").inc()
        raise
    except (WrongSignatureError, WrongEventError) as error:
        code = "wrong_signature" if isinstance(error, WrongSignatureError) else "wrong_event"
        metrics.WEBHOOKS.labels(form, code).inc()
        if not refusals.take():
            raise HTTPException(429, "Too many webhooks were refused.", {"Retry-After": "1"}) from error
        await log.awarning("webhook_refused", endpoint=form, code=code, problem=str(error))
        raise WebhookRefusedError(code, str(error)) from error
    await _store(config, told, body, form, now)
    return {"received": True}


async def _read(request: Request) -> bytes:
    """Return the body.

    Raises:
        HTTPException: 413 past 512 KB, whatever its header promised; 408 where it does not come; 400 where it
            ends too soon.
    """
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > MAX_BODY_BYTES:
                    raise HTTPException(413, f"A webhook may have at most {MAX_BODY_BYTES:,} bytes.")
                parts.append(part)
    except TimeoutError as error:
        raise HTTPException(408, "The body did not come in time.") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "The body did not come whole.") from error
    return b"".join(parts)


async def _store(config: WebhooksConfig, told: Told, body: bytes, form: Form, now: datetime) -> None:
    async with config.sessions() as session, session.begin():
        is_new = await store_delivered(session, told, body=body, now=now)
    result = "stored" if is_new else "repeated"
    metrics.WEBHOOKS.labels(form, result).inc()
    await log.ainfo("webhook_" + result, event_id=told.id, event_type=told.type)
