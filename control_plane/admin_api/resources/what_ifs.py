"""What other terms of a plan would have cost its customers."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.admin_api.access import Authenticated
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import (
    Code,
    Moment,
    MoneyAnswer,
    PageAnswer,
    PageQuery,
    StrictBody,
    page_answer,
)
from control_plane.admin_api.services import Given, Now
from control_plane.billing.what_if import operations, queries
from control_plane.billing.what_if.queries import Found, WhatIf, WhatIfSums
from control_plane.catalog.plan_file import parse_plan_file
from control_plane.foundation.money import Money
from control_plane.foundation.pagination import MAX_PAGE_SIZE

router = APIRouter(prefix="/what-if", tags=["plans"])
SHOWN = 20
MAX_FILE = 1_000_000
JobId = Annotated[str, Path(pattern=r"^wif_[0-9a-hjkmnp-tv-z]{26}$", description="The job's id.")]
CSV_COLUMNS = (
    "subscription_id",
    "account_id",
    "account_name",
    "currency",
    "periods",
    "before",
    "after",
    "difference",
    "refused_units",
)


class StartWhatIf(StrictBody):
    """Which terms, and how far back."""

    plan: Code
    source: Annotated[
        Literal["draft", "version", "plan_file"],
        Field(description="The plan's draft; `version`: that one; `plan_file`: the plan as the text has it."),
    ] = "draft"
    version: Annotated[int | None, Field(strict=True, ge=1, le=2**31 - 1)] = None
    plan_file: Annotated[str | None, Field(max_length=MAX_FILE)] = None
    months: Annotated[int, Field(strict=True, ge=1, le=12)] = 3


class WhatIfSumsAnswer(BaseModel):
    """Over those to whom the terms are sold."""

    subscriptions: int
    before: MoneyAnswer
    after: MoneyAnswer
    difference: MoneyAnswer
    dearer: int = Field(description="Subscriptions that would have paid more.")
    cheaper: int
    same: int
    not_sold: int = Field(description="Subscriptions in this currency, to whom the terms are not sold.")
    refused_units: int = Field(description="Quota units that the terms would have refused; not charged.")


class WhatIfAnswer(BaseModel):
    """A job, and its sums by currency as far as it is."""

    id: str
    plan: str
    source: str
    months: int
    status: str = Field(description="`queued`, `done` or `failed`.")
    error: str
    as_of: Moment
    created_by: str
    created_at: Moment
    finished_at: Moment | None
    sums: dict[str, WhatIfSumsAnswer]


class WhatIfResultAnswer(BaseModel):
    """One subscription; amounts of its billing periods that are over, before discounts and taxes."""

    subscription_id: str
    account_id: str
    account_name: str
    periods: int
    before: MoneyAnswer
    after: MoneyAnswer | None = Field(description="Null where the terms are not sold in the currency.")
    difference: MoneyAnswer | None
    refused_units: int


class WhatIfDetailAnswer(WhatIfAnswer):
    """The same, with the subscriptions that it would change most."""

    largest: list[WhatIfResultAnswer]


@router.post("", status_code=201)
async def start_what_if(body: StartWhatIf, session: Database, caller: Authenticated, now: Now) -> WhatIfAnswer:
    """Replay the last months of all who have or had a plan under other terms of it, as a job."""
    # a large file takes seconds to read: the loop must not stand still for it
    file = None if body.plan_file is None else await asyncio.to_thread(parse_plan_file, body.plan_file)
    job = await operations.start_what_if(
        session,
        plan_code=body.plan,
        source=body.source,
        version=body.version,
        plan_file=file,
        months=body.months,
        actor=caller.actor,
        now=now,
    )
    await session.flush()
    return _answer(await queries.what_if(session, job.id))


@router.get("")
async def list_what_ifs(page: Annotated[PageQuery, Query()], session: Database) -> PageAnswer[WhatIfAnswer]:
    """List jobs, newest first."""
    return page_answer(await queries.what_ifs_page(session, cursor=page.cursor, limit=page.limit), _answer)


@router.get("/{job_id}")
async def get_what_if(job_id: JobId, session: Database) -> WhatIfDetailAnswer:
    """Show a job, and the 20 subscriptions that it would change most."""
    found = await queries.what_if(session, job_id)
    largest = await queries.largest_differences(session, job_id, limit=SHOWN)
    return WhatIfDetailAnswer(**_answer(found).model_dump(), largest=[_result(one) for one in largest])


@router.get("/{job_id}/subscriptions")
async def list_what_if_results(
    job_id: JobId, page: Annotated[PageQuery, Query()], session: Database
) -> PageAnswer[WhatIfResultAnswer]:
    """List what a job found for each subscription."""
    return page_answer(await queries.results_page(session, job_id, cursor=page.cursor, limit=page.limit), _result)


@router.get("/{job_id}/export", response_class=StreamingResponse, responses={200: {"content": {"text/csv": {}}}})
async def export_what_if(job_id: JobId, session: Database, services: Given) -> StreamingResponse:
    """Download what a job found, once it is done, as CSV: a line for each subscription, amounts as decimals."""
    found = await queries.what_if(session, job_id)
    if found.job.status != "done":
        raise queries.WhatIfNotDoneError(job_id, found.job.status)

    async def lines() -> AsyncIterator[str]:
        async with services.sessions() as reading:
            async for text in _csv(reading, job_id):
                yield text

    headers = {"Content-Disposition": f'attachment; filename="{job_id}.csv"'}
    return StreamingResponse(lines(), media_type="text/csv", headers=headers)


async def _csv(session: AsyncSession, job_id: str) -> AsyncIterator[str]:
    yield ",".join(CSV_COLUMNS) + "\r\n"
    cursor: str | None = None
    while True:
        page = await queries.results_page(session, job_id, cursor=cursor, limit=MAX_PAGE_SIZE)
        buffer = io.StringIO()
        csv.writer(buffer).writerows(_row(one) for one in page.items)
        yield buffer.getvalue()
        cursor = page.next_cursor
        if cursor is None:
            return


def _row(one: Found) -> tuple[str | int, ...]:
    result = one.result

    def decimal(amount_minor: int | None) -> str:
        return "" if amount_minor is None else f"{Money(amount_minor, result.currency).as_decimal():f}"

    difference = None if result.after_minor is None else result.after_minor - result.before_minor
    # a name that begins like a formula would be one in a spreadsheet
    name = f"'{one.account_name}" if one.account_name[:1] in "=+-@" else one.account_name
    return (
        result.subscription_id,
        result.account_id,
        name,
        result.currency,
        result.periods,
        decimal(result.before_minor),
        decimal(result.after_minor),
        decimal(difference),
        result.refused_units,
    )


def _answer(found: WhatIf) -> WhatIfAnswer:
    job = found.job
    return WhatIfAnswer(
        id=job.id,
        plan=found.plan_code,
        source=job.source,
        months=job.months,
        status=job.status,
        error=job.error,
        as_of=job.as_of,
        created_by=job.created_by,
        created_at=job.created_at,
        finished_at=job.finished_at,
        sums={currency: _sums(sums, currency) for currency, sums in found.sums.items()},
    )


def _sums(sums: WhatIfSums, currency: str) -> WhatIfSumsAnswer:
    return WhatIfSumsAnswer(
        subscriptions=sums.subscriptions,
        before=MoneyAnswer.of(sums.before_minor, currency),
        after=MoneyAnswer.of(sums.after_minor, currency),
        difference=MoneyAnswer.of(sums.after_minor - sums.before_minor, currency),
        dearer=sums.dearer,
        cheaper=sums.cheaper,
        same=sums.same,
        not_sold=sums.not_sold,
        refused_units=sums.refused_units,
    )


def _result(one: Found) -> WhatIfResultAnswer:
    result = one.result
    after = result.after_minor
    return WhatIfResultAnswer(
        subscription_id=result.subscription_id,
        account_id=result.account_id,
        account_name=one.account_name,
        periods=result.periods,
        before=MoneyAnswer.of(result.before_minor, result.currency),
        after=None if after is None else MoneyAnswer.of(after, result.currency),
        difference=None if after is None else MoneyAnswer.of(after - result.before_minor, result.currency),
        refused_units=result.refused_units,
    )
