"""The audit log is written with the change, and the database refuses to alter it."""

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import IntegrityError
from structlog.contextvars import bound_contextvars

from control_plane.accounts.tables import Account
from control_plane.foundation.audit import AuditRow
from tests.control_plane.builders import an_account, audit_of


class TestAuditLog:
    async def test_stands_in_the_changes_own_transaction(self, session, now):
        account = await an_account(session, now=now)
        account_id = account.id
        assert len(await audit_of(session, account_id)) == 1
        await session.rollback()
        assert await audit_of(session, account_id) == []
        assert await session.get(Account, account_id) is None

    async def test_names_the_request_that_made_the_change(self, session, now):
        with bound_contextvars(request_id="req_7"):
            account = await an_account(session, now=now)
        (row,) = await audit_of(session, account.id)
        assert (row.request_id, row.at, row.action) == ("req_7", now, "account.created")

    @pytest.mark.parametrize(
        "statement",
        [update(AuditRow).values(actor="somebody else"), delete(AuditRow), text("TRUNCATE audit_log")],
        ids=["update", "delete", "truncate"],
    )
    async def test_cannot_be_changed(self, session, now, statement):
        await an_account(session, now=now)
        await session.commit()
        with pytest.raises(IntegrityError, match="audit log is never changed"):
            await session.execute(statement)
        await session.rollback()
        assert (await session.scalars(select(AuditRow))).one().actor == "tok_tester"
