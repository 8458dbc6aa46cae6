"""`km mail`."""

from pathlib import Path
from typing import Annotated

import typer

from control_plane.entrypoints.commands.client import download, get, pages, post
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_json, print_rows

app = typer.Typer(help="Mails to customers.", no_args_is_help=True)
COLUMNS = ("id", "kind", "account_id", "state", "subject", "sent_to", "attempts", "created_at", "error")
FIELDS = (
    "id",
    "kind",
    "account_id",
    "state",
    "sent_to",
    "message_id",
    "attempts",
    "created_at",
    "due_at",
    "sent_at",
    "error",
)
MailArgument = Annotated[str, typer.Argument(metavar="MAIL", help="The mail's id.")]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write the page there.")]


@app.command("list")
def list_(
    *,
    account: Annotated[str | None, typer.Option(metavar="ACCOUNT", help="Only one account's.")] = None,
    state: Annotated[str | None, typer.Option(help="waiting, sent, refused, given_up or unknown.")] = None,
    kind: Annotated[str | None, typer.Option(help="Such as payment_failed.")] = None,
    at_most: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List mails, newest first."""
    wanted = {"account_id": account, "state": state, "kind": kind}
    print_rows(pages("/mails", at_most=at_most, **wanted), COLUMNS, as_json=as_json)
    if not as_json and not get("/mails", limit=1)["sending"]:
        typer.echo("Nothing is sent: KM_SMTP_HOST is not set.", err=True)


@app.command("show")
def show(mail: MailArgument, *, html: Html = None, as_json: AsJson = False) -> None:
    """Show a mail, with its text."""
    found = get(f"/mails/{mail}")
    if html is not None:
        download(f"/mails/{mail}/html", html)
    if as_json:
        print_json(found)
        return
    print_fields(found, FIELDS)
    typer.echo(f"\n{found['subject']}\n\n{found['text']}")


@app.command("resend")
def resend(mail: MailArgument, *, as_json: AsJson = False) -> None:
    """Send a mail once more, to where the account's bills go now."""
    print_fields(post(f"/mails/{mail}/resend"), FIELDS, as_json=as_json)


@app.command("test")
def send_test(
    to: Annotated[str, typer.Argument(metavar="ADDRESS", help="Where it goes.")], *, as_json: AsJson = False
) -> None:
    """Queue a mail that shows whether mail is set up."""
    print_fields(post("/mails/test", {"to": to}), FIELDS, as_json=as_json)


@app.command("preview")
def preview(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="Such as payment_failed; see `km mail kinds`.")],
    *,
    html: Html = None,
    as_json: AsJson = False,
) -> None:
    """Show how a kind of mail reads, with made-up figures."""
    found = get(f"/mails/previews/{kind}")
    if html is not None:
        download(f"/mails/previews/{kind}/html", html)
    if as_json:
        print_json(found)
    else:
        typer.echo(f"{found['subject']}\n\n{found['text']}")


@app.command("kinds")
def kinds(*, as_json: AsJson = False) -> None:
    """List the kinds of mail with their subjects."""
    print_rows(get("/mails/previews")["items"], ("kind", "subject"), as_json=as_json)
