"""What the event store holds."""

import asyncio
from dataclasses import asdict
from datetime import date

from fastapi import APIRouter
from pydantic import BaseModel, Field

from control_plane.admin_api.access import Authenticated
from control_plane.admin_api.services import Given
from control_plane.usage.store.status import store_status

router = APIRouter(tags=["maintenance"])


class TableAnswer(BaseModel):
    table: str
    rows: int = Field(description="As stored: versions of one row that were not merged yet count one by one.")
    bytes: int = Field(description="On disk.")
    parts: int
    partitions: int = Field(description="Days of events, months of dead letters.")
    oldest_day: date | None
    newest_day: date | None
    expired_rows: int = Field(description="Past their retention; they go with the next merge.")


class EventStoreAnswer(BaseModel):
    tables: list[TableAnswer]


@router.get("/event-store")
async def event_store(services: Given, _caller: Authenticated) -> EventStoreAnswer:
    """Say how much the event store holds, and from which days."""
    async with services.history.store() as store:
        tables = await asyncio.to_thread(store_status, store)
    return EventStoreAnswer(tables=[TableAnswer(**asdict(table)) for table in tables])
