"""Mails to customers: what was sent, what waits, how each kind looks."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, Field, StringConstraints

from control_plane.accounts.model import Role
from control_plane.admin_api.access import Authenticated, allows
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import (
    Answer,
    Moment,
    PageAnswer,
    PageQuery,
    PrintableText,
    StrictBody,
    page_answer,
)
from control_plane.admin_api.request_forms import AccountIdText
from control_plane.admin_api.services import Given, Now, Services
from control_plane.foundation.errors import ConflictError
from control_plane.notifications import operations, queries
from control_plane.notifications.model import MailKind, MailState
from control_plane.notifications.recipients import recipient_of
from control_plane.notifications.rendering import MailNotRenderedError, RenderedMail, render_mail
from control_plane.notifications.samples import SAMPLE_ACCOUNT, SAMPLES
from control_plane.notifications.tables import Mail

router = APIRouter(tags=["mails"])
MailId = Annotated[str, Path(pattern=r"^mail_[0-9a-hjkmnp-tv-z]{26}$", description="The mail's id.")]
KindPath = Annotated[MailKind, Path(description="The kind of mail.")]
# what a mail holds may lead nowhere and run nothing, even where somebody opens it as a page
HTML_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}


class MailsQuery(PageQuery):
    """Which mails."""

    account_id: AccountIdText | None = None
    state: MailState | None = None
    kind: MailKind | None = None


class TestMailBody(StrictBody):
    """Where a mail goes that shows whether mail is set up."""

    to: Annotated[str, StringConstraints(min_length=3, max_length=320), PrintableText] = Field(
        examples=["ada@example.com"]
    )


class MailAnswer(Answer):
    id: str
    kind: str
    account_id: str | None
    state: MailState = Field(
        description="`waiting`, `sent`, `refused` (will never be taken), `given_up` (taken by nobody for days), or"
        " `unknown` (the connection was lost twice: it may have arrived)."
    )
    subject: str = Field(description="Of a mail that was sent; empty before.")
    sent_to: str | None
    message_id: str | None
    attempts: int
    error: str | None = Field(description="Why it was not sent, as the mail server said.")
    created_at: Moment
    due_at: Moment = Field(description="Not tried again before.")
    sent_at: Moment | None


class MailsAnswer(PageAnswer[MailAnswer]):
    sending: bool = Field(description="Whether a mail server is set (KM_SMTP_HOST); without, mails only wait.")


class MailTextAnswer(MailAnswer):
    text: str = Field(description="The mail as plain text, as it would be written now.")


class PreviewAnswer(BaseModel):
    kind: MailKind
    subject: str
    text: str


class PreviewsAnswer(BaseModel):
    items: list[PreviewAnswer]


@router.get("/mails")
async def list_mails(session: Database, services: Given, query: Annotated[MailsQuery, Query()]) -> MailsAnswer:
    """List mails, newest first."""
    page = await queries.mail_page(
        session,
        account_id=query.account_id,
        state=query.state,
        kind=query.kind,
        limit=query.limit,
        cursor=query.cursor,
    )
    answer = page_answer(page, _answer)
    return MailsAnswer(items=answer.items, next_cursor=answer.next_cursor, sending=services.mail.smtp is not None)


@router.post("/mails/test", status_code=201)
async def send_test_mail(body: TestMailBody, session: Database, caller: Authenticated, now: Now) -> MailAnswer:
    """Queue a mail that shows whether mail is set up; `GET /mails/{mail_id}` tells what became of it."""
    return _answer(await operations.queue_test_mail(session, to_address=body.to, actor=caller.actor, now=now))


@router.get("/mails/previews")
async def list_mail_previews(services: Given) -> PreviewsAnswer:
    """List all kinds of mail as they read, with made-up figures and this installation's name."""
    return PreviewsAnswer(items=[_preview_answer(kind, services) for kind in MailKind])


@router.get("/mails/previews/{kind}")
async def preview_mail(kind: KindPath, services: Given) -> PreviewAnswer:
    """Return how a kind of mail reads, with made-up figures and this installation's name."""
    return _preview_answer(kind, services)


@router.get(
    "/mails/previews/{kind}/html",
    response_class=Response,
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
async def preview_mail_html(kind: KindPath, services: Given) -> Response:
    """Return how a kind of mail looks, as a page."""
    return _page(_preview(kind, services))


@router.get("/mails/{mail_id}")
async def get_mail(mail_id: MailId, session: Database, services: Given) -> MailTextAnswer:
    """Return a mail with its text."""
    mail = await queries.mail_by_id(session, mail_id)
    rendered = await _rendered(session, mail, services)
    facts = _answer(mail).model_dump()
    return MailTextAnswer(**facts | {"subject": mail.subject or rendered.subject}, text=rendered.text)


@router.get(
    "/mails/{mail_id}/html",
    response_class=Response,
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
async def get_mail_html(mail_id: MailId, session: Database, services: Given) -> Response:
    """Return a mail as a page."""
    return _page(await _rendered(session, await queries.mail_by_id(session, mail_id), services))


@router.post("/mails/{mail_id}/resend")
@allows(Role.SUPPORT, Role.FINANCE)
async def resend_mail(mail_id: MailId, session: Database, caller: Authenticated, now: Now) -> MailAnswer:
    """Send a mail once more, whatever became of it, to where the account's bills go now."""
    return _answer(await operations.resend_mail(session, mail_id=mail_id, actor=caller.actor, now=now))


def _answer(mail: Mail) -> MailAnswer:
    return MailAnswer.model_validate(mail)


def _preview_answer(kind: MailKind, services: Services) -> PreviewAnswer:
    rendered = _preview(kind, services)
    return PreviewAnswer(kind=kind, subject=rendered.subject, text=rendered.text)


def _preview(kind: MailKind, services: Services) -> RenderedMail:
    return render_mail(kind, SAMPLES[kind], branding=services.mail.branding, account=SAMPLE_ACCOUNT)


async def _rendered(session: Database, mail: Mail, services: Services) -> RenderedMail:
    recipient = await recipient_of(session, account_id=mail.account_id, to_address=mail.to_address)
    account, time_zone = ("", "UTC") if isinstance(recipient, str) else (recipient.account, recipient.time_zone)
    try:
        return render_mail(
            mail.kind, mail.values, branding=services.mail.branding, account=account, time_zone=time_zone
        )
    except MailNotRenderedError as error:
        raise ConflictError(
            "mail_not_shown",
            "This mail was made by another version of the product and cannot be shown.",
            detail=str(error),
        ) from error


def _page(rendered: RenderedMail) -> Response:
    return Response(rendered.html, media_type="text/html; charset=utf-8", headers=HTML_HEADERS)
