"""Notices that stand on an account's pages: what is unpaid, until when, and what holds."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.documents.model import money
from control_plane.dunning.model import ends_at
from control_plane.dunning.plans import plan_name, plan_names
from control_plane.dunning.records import facts_of
from control_plane.dunning.tables import DunningCase
from control_plane.dunning.unpaid import UnpaidInvoice, unpaid_invoices
from control_plane.subscriptions.model import Status
from control_plane.subscriptions.tables import Subscription

Code = Literal["payment_failed", "payment_action_required", "access_blocked", "access_reduced", "trial_ending"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """`until`: when the grace or the trial ends, None where nothing ends. `link`: where it can be paid."""

    code: Code
    severity: Literal["info", "warning", "error"]
    text: str
    subscription_id: str
    since: datetime
    until: datetime | None
    link: str | None


async def notices_of(
    session: AsyncSession, account_id: str, *, trial_notice: timedelta, now: datetime
) -> list[Notice]:
    """Return the notices of an account, the most pressing first."""
    statement = (
        select(DunningCase, Subscription)
        .join(Subscription, Subscription.id == DunningCase.subscription_id)
        .where(
            DunningCase.account_id == account_id,
            DunningCase.closed_at.is_(None),
            # paid a moment ago: the case is closed in the next one
            Subscription.status == Status.PAST_DUE.value,
        )
        .order_by(DunningCase.opened_at, DunningCase.id)
    )
    found = [
        await case_notice(session, case, subscription, now=now)
        for case, subscription in (await session.execute(statement)).all()
    ]
    found.extend(await _of_trials(session, account_id, trial_notice=trial_notice, now=now))
    order = {"error": 0, "warning": 1, "info": 2}
    return sorted(found, key=lambda notice: order[notice.severity])


async def case_notice(
    session: AsyncSession, case: DunningCase, subscription: Subscription, *, now: datetime
) -> Notice:
    """Return what stands on an account's pages while a case is open."""
    names = await plan_names(session, subscription.id)
    unpaid = await unpaid_invoices(session, subscription, now=now)
    what = f"{_owed(unpaid)} for {names.plan}" if unpaid else names.plan
    until = None if case.after == "serve" or case.fell_at else ends_at(facts_of(case), now)
    links = [bill.pay_url for bill in unpaid if bill.pay_url]
    code: Code = "payment_failed"
    severity: Literal["warning", "error"] = "warning"
    if case.state == "blocked":
        code, severity, text = "access_blocked", "error", f"{what} is unpaid: calls are refused until it is paid."
    elif case.state == "fallen_back":
        free = await plan_name(session, case.free_plan_version_id)
        code, severity, text = (
            "access_reduced",
            "error",
            f"{what} is unpaid: the limits of {free} hold until it is paid.",
        )
    elif any(bill.asks_customer for bill in unpaid):
        code, text = "payment_action_required", f"The payment of {what} must be confirmed with the bank."
    else:
        text = f"The payment of {what} failed."
    return Notice(
        code=code,
        severity=severity,
        text=text,
        subscription_id=subscription.id,
        since=case.fell_at or case.opened_at,
        until=until,
        link=links[-1] if links else None,
    )


def _owed(unpaid: Collection[UnpaidInvoice]) -> str:
    by_currency: dict[str, int] = {}
    for bill in unpaid:
        by_currency[bill.currency] = by_currency.get(bill.currency, 0) + bill.amount_minor
    return " and ".join(money(amount, currency) for currency, amount in sorted(by_currency.items()))


async def _of_trials(
    session: AsyncSession, account_id: str, *, trial_notice: timedelta, now: datetime
) -> list[Notice]:
    statement = select(Subscription).where(
        Subscription.account_id == account_id,
        Subscription.status == Status.TRIALING.value,
        Subscription.trial_ends_at > now,
        Subscription.trial_ends_at <= now + trial_notice,
    )
    return [
        Notice(
            code="trial_ending",
            severity="info",
            text=f"The trial of {(await plan_names(session, subscription.id)).plan} ends.",
            subscription_id=subscription.id,
            since=(subscription.trial_ends_at or now) - trial_notice,
            until=subscription.trial_ends_at,
            link=None,
        )
        for subscription in (await session.scalars(statement)).all()
    ]
