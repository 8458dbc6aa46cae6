"""Drafts: terms of a plan that are being worked on. A plan has at most one. Nothing here commits.

`publishing.publish_draft` puts one on sale.
"""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.locks import lock_catalog, locked_plan
from control_plane.catalog.model import PlanTerms
from control_plane.catalog.publishing import NoDraftError
from control_plane.catalog.queries import terms_of_version
from control_plane.catalog.tables import PlanVersion
from control_plane.catalog.terms_rules import check_form, names_in_file
from control_plane.catalog.version_rows import add_draft, draft_row, remove_version, rewrite_draft
from control_plane.foundation.audit import record_change


async def save_draft(
    session: AsyncSession, *, plan_code: str, terms: PlanTerms, actor: str, now: datetime
) -> PlanVersion:
    """Keep terms as the draft of a plan, in place of the draft that was kept. The same terms change nothing.

    What keeps them from being sold (see `publishing.draft_problems`) may stay open; each field must be right by
    itself.

    Raises:
        NotFoundError: no such plan. ValidationFailedError: names every wrong field in the words of a plan file.
    """
    await lock_catalog(session)
    plan = await locked_plan(session, plan_code)
    terms = check_form(terms, kind=plan.kind, names=names_in_file())
    draft = await draft_row(session, plan.id)
    before = None if draft is None else terms_of_version(draft)
    if draft is not None and before == terms:
        return draft
    if draft is None:
        draft = await add_draft(session, plan.id, terms, now=now)
    else:
        await rewrite_draft(session, draft, terms, now=now)
    await record_change(
        session,
        actor=actor,
        action="plan_version.drafted",
        entity_type="plan_version",
        entity_id=draft.id,
        before=None if before is None else before.as_dict(),
        after={"plan": plan.code, "version": draft.version, **terms.as_dict()},
        now=now,
    )
    return draft


async def discard_draft(session: AsyncSession, *, plan_code: str, actor: str, now: datetime) -> None:
    """Throw the draft of a plan away.

    Raises:
        NotFoundError: no such plan. NoDraftError.
    """
    await lock_catalog(session)
    plan = await locked_plan(session, plan_code)
    draft = await draft_row(session, plan.id)
    if draft is None:
        raise NoDraftError(plan_code)
    before = {"plan": plan.code, "version": draft.version, **terms_of_version(draft).as_dict()}
    await remove_version(session, draft)
    await record_change(
        session,
        actor=actor,
        action="plan_version.discarded",
        entity_type="plan_version",
        entity_id=draft.id,
        before=before,
        after=None,
        now=now,
    )
