"""Reading what-if jobs and what they found."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.tables import Account
from control_plane.billing.what_if.tables import WhatIfJob, WhatIfResult
from control_plane.catalog.tables import Plan
from control_plane.foundation.errors import ConflictError, NotFoundError
from control_plane.foundation.pagination import Page, decode_cursor, page_of


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIfSums:
    """Sums in one currency over those to whom the terms are sold; `not_sold` are those to whom they are not.

    `dearer` would have paid more, `cheaper` less, `same` the same.
    """

    subscriptions: int
    before_minor: int
    after_minor: int
    dearer: int
    cheaper: int
    same: int
    not_sold: int
    refused_units: int


class WhatIfNotDoneError(ConflictError):
    """What a job has found so far is not what it will have found."""

    def __init__(self, job_id: str, status: str) -> None:
        words = "failed" if status == "failed" else "is still being worked out"
        instead = "start another" if status == "failed" else "export it when it is done"
        super().__init__("what_if_not_done", f"What-if {job_id} {words}: {instead}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """A job with its sums by currency, as far as it is."""

    job: WhatIfJob
    plan_code: str
    sums: dict[str, WhatIfSums]


@dataclass(frozen=True, slots=True)
class Found:
    """What a job found for one subscription."""

    result: WhatIfResult
    account_name: str


async def what_if(session: AsyncSession, job_id: str) -> WhatIf:
    """Return a job.

    Raises:
        NotFoundError: there is none.
    """
    rows = (await session.execute(_jobs().where(WhatIfJob.id == job_id))).all()
    if not rows:
        raise NotFoundError("what_if", job_id)
    return (await _with_sums(session, rows))[0]


async def what_ifs_page(session: AsyncSession, *, cursor: str | None, limit: int) -> Page[WhatIf]:
    """Return a page of jobs, newest first.

    Raises:
        ValidationFailedError: the cursor is not one of this list.
    """
    statement = _jobs().order_by(WhatIfJob.created_at.desc(), WhatIfJob.id.desc()).limit(limit + 1)
    if cursor is not None:
        statement = statement.where(
            tuple_(WhatIfJob.created_at, WhatIfJob.id) < decode_cursor(cursor, datetime, str)
        )
    rows = (await session.execute(statement)).all()
    page = page_of(rows, limit=limit, sort_values=lambda row: (row.WhatIfJob.created_at, row.WhatIfJob.id))
    return Page(tuple(await _with_sums(session, page.items)), page.next_cursor)


async def results_page(session: AsyncSession, job_id: str, *, cursor: str | None, limit: int) -> Page[Found]:
    """Return a page of what a job found, by subscription.

    Raises:
        NotFoundError: no such job. ValidationFailedError: the cursor is not one of this list.
    """
    if await session.scalar(select(WhatIfJob.id).where(WhatIfJob.id == job_id)) is None:
        raise NotFoundError("what_if", job_id)
    statement = (
        select(WhatIfResult, Account.name)
        .join(Account, Account.id == WhatIfResult.account_id)
        .where(WhatIfResult.job_id == job_id)
        .order_by(WhatIfResult.subscription_id)
        .limit(limit + 1)
    )
    if cursor is not None:
        statement = statement.where(WhatIfResult.subscription_id > decode_cursor(cursor, str)[0])
    rows = [Found(result, name) for result, name in await session.execute(statement)]
    return page_of(rows, limit=limit, sort_values=lambda row: (row.result.subscription_id,))


async def largest_differences(session: AsyncSession, job_id: str, *, limit: int) -> list[Found]:
    """Return the subscriptions whose amounts differ most, either way."""
    statement = (
        select(WhatIfResult, Account.name)
        .join(Account, Account.id == WhatIfResult.account_id)
        .where(WhatIfResult.job_id == job_id, WhatIfResult.after_minor.is_not(None))
        .order_by(
            func.abs(WhatIfResult.after_minor - WhatIfResult.before_minor).desc(), WhatIfResult.subscription_id
        )
        .limit(limit)
    )
    return [Found(result, name) for result, name in await session.execute(statement)]


def _jobs() -> Any:
    return select(WhatIfJob, Plan.code).join(Plan, Plan.id == WhatIfJob.plan_id)


async def _with_sums(session: AsyncSession, rows: Sequence[Row[Any]]) -> list[WhatIf]:
    before, after = WhatIfResult.before_minor, WhatIfResult.after_minor
    statement = (
        select(
            WhatIfResult.job_id,
            WhatIfResult.currency,
            func.count(after).label("subscriptions"),
            func.coalesce(func.sum(before).filter(after.is_not(None)), 0).label("before_minor"),
            func.coalesce(func.sum(after), 0).label("after_minor"),
            func.count().filter(after > before).label("dearer"),
            func.count().filter(after < before).label("cheaper"),
            func.count().filter(after == before).label("same"),
            func.count().filter(after.is_(None)).label("not_sold"),
            func.sum(WhatIfResult.refused_units).label("refused_units"),
        )
        .where(WhatIfResult.job_id.in_([row.WhatIfJob.id for row in rows]))
        .group_by(WhatIfResult.job_id, WhatIfResult.currency)
        .order_by(WhatIfResult.currency)
    )
    groups = (await session.execute(statement)).all()
    return [
        WhatIf(
            job=row.WhatIfJob,
            plan_code=row.code,
            sums={group.currency: _sums(group) for group in groups if group.job_id == row.WhatIfJob.id},
        )
        for row in rows
    ]


def _sums(group: Any) -> WhatIfSums:
    return WhatIfSums(
        subscriptions=group.subscriptions,
        before_minor=int(group.before_minor),
        after_minor=int(group.after_minor),
        dearer=group.dearer,
        cheaper=group.cheaper,
        same=group.same,
        not_sold=group.not_sold,
        refused_units=int(group.refused_units),
    )
