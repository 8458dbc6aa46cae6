"""The mailbox as pages: a list, and each mail as it looks on a desk and on a phone.

What a mail holds is shown in frames that may run nothing and load nothing.
"""

from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from devstack.mailbox.store import Mailbox, ReceivedMail

SHOWN_HEADERS = ("From", "To", "Subject", "Date", "Message-ID")
# links open beside the page; nothing else gets out of the frame
SANDBOX = "allow-popups allow-popups-to-escape-sandbox"
_PAGE = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'"}
_MAIL = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox {SANDBOX};"
    " frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
}
_environment = Environment(
    loader=PackageLoader("devstack.mailbox"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def mailbox_app(mailbox: Mailbox) -> Starlette:
    """Return the pages over a mailbox."""

    async def all_mails(_: Request) -> Response:
        mails = [{"number": mail.number, **_headers(mail)} for mail in mailbox.mails()]
        return _page("list.html", mails=mails)

    async def as_json(_: Request) -> Response:
        return JSONResponse(
            [{"number": mail.number, **_headers(mail), "text": mail.part("plain")} for mail in mailbox.mails()]
        )

    async def one(request: Request) -> Response:
        mail = mailbox.mail(request.path_params["number"])
        if mail is None:
            return PlainTextResponse("There is no such mail.", status_code=404)
        return _page(
            "mail.html", number=mail.number, headers=_headers(mail), text=mail.part("plain"), sandbox=SANDBOX
        )

    async def html(request: Request) -> Response:
        mail = mailbox.mail(request.path_params["number"])
        if mail is None:
            return PlainTextResponse("There is no such mail.", status_code=404)
        return HTMLResponse(mail.part("html") or f"<pre>{_escaped(mail.part('plain'))}</pre>", headers=_MAIL)

    async def raw(request: Request) -> Response:
        mail = mailbox.mail(request.path_params["number"])
        if mail is None:
            return PlainTextResponse("There is no such mail.", status_code=404)
        return PlainTextResponse(mail.raw.decode(errors="replace"), headers=_MAIL)

    return Starlette(
        routes=[
            Route("/", all_mails),
            Route("/mails.json", as_json),
            Route("/mails/{number:int}", one),
            Route("/mails/{number:int}/html", html),
            Route("/mails/{number:int}/raw", raw),
        ]
    )


def _headers(mail: ReceivedMail) -> Mapping[str, str]:
    message = mail.message
    return {name: str(message[name] or "") for name in SHOWN_HEADERS}


def _page(template: str, **values: object) -> Response:
    return HTMLResponse(_environment.get_template(template).render(**values), headers=_PAGE)


def _escaped(text: str) -> str:
    return _environment.from_string("{{ text }}").render(text=text)
