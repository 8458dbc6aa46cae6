"""`km dev`, `km demo` and `km year`: the whole product on this machine."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from devstack.children import ChildFailedError
from devstack.overview import print_overview, until_interrupted, well_known_ports
from devstack.stack import Stack

BILLING_SETTINGS = ("KM_SELLER_", "KM_PAYMENT_NOTE", "KM_INVOICE_", "KM_OVERDUE_", "KM_CREDIT_", "KM_STRIPE_")
MAIL_SETTINGS = ("KM_SMTP_", "KM_MAIL_FROM", "KM_BRAND_", "KM_SUPPORT_", "KM_DUNNING_", "KM_TRIAL_")
SMTP_HOST = "KM_SMTP_HOST"
STRIPE_KEY = "KM_STRIPE_KEY"


def register(app: typer.Typer) -> None:
    """Add this package's commands to `km`."""
    app.command("dev")(dev)
    app.command("demo")(demo)
    app.command("year")(year)


def dev(
    data_dir: Annotated[Path, typer.Option(help="Where everything is kept between runs.")] = Path(".km/dev"),
) -> None:
    """Run the whole stack on this machine (stores, gateway, sample API, server) until Ctrl-C.

    Needs no root, no Docker and no network; for development only. Starts empty: `km plans apply plans.yml`.

    Who sells, and when invoices are final and due, it takes from KM_SELLER_NAME, KM_INVOICE_DUE_DAYS and the like.

    Without KM_STRIPE_KEY a simulated Stripe runs with it: no network, no money, and its pages to pay at.
    Without KM_SMTP_HOST mails end in a mailbox with a page.
    """
    console = Console()
    settings = billing_settings(os.environ)
    stack = Stack(
        data_dir,
        ports=well_known_ports(),
        settings=settings,
        stripe=not settings.get(STRIPE_KEY, "").strip(),
        mailbox=not settings.get(SMTP_HOST, "").strip(),
    )
    stopping = until_interrupted()
    try:
        with console.status("starting stores, gateway and server ..."):
            stack.start()
    except ChildFailedError as error:
        console.print(f"[red]km dev:[/red] {error}", highlight=False)
        raise typer.Exit(1) from error
    try:
        print_overview(console, stack)
        console.print("Ctrl-C ends it; the data stays.")
        stopping.wait()
    finally:
        with console.status("stopping ..."):
            stack.stop()


def billing_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of invoices, mails and what unpaid bills lead to; all others are the stack's own."""
    return {
        name: value for name, value in environment.items() if name.startswith(BILLING_SETTINGS + MAIL_SETTINGS)
    }


def demo(
    *,
    plans: Annotated[Path, typer.Option(help="The catalog to load.")] = Path("plans.yml"),
    page: Annotated[Path, typer.Option(help="Where the page is written.")] = Path(".km/demo/report.html"),
    keep: Annotated[bool, typer.Option("--keep", help="Keep stack and page up until Ctrl-C.")] = False,
) -> None:
    """Drive real traffic through a fresh stack; show usage, limits and invoices; fail if a figure differs."""
    from devstack.demo.control import ControlError
    from devstack.demo.run import run_demo

    console = Console()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        passed = run_demo(console, plans_path=plans, page_path=page, keep=keep)
    except (ChildFailedError, ControlError, OSError) as error:
        console.print(f"[red]km demo:[/red] {error}", highlight=False)
        raise typer.Exit(1) from error
    raise typer.Exit(0 if passed else 1)


def year(
    *,
    page: Annotated[Path | None, typer.Option(help="Write the year as a page, too.")] = None,
) -> None:
    """Play a year of customers in minutes; compare each bill with one made by hand; fail if one differs."""
    from devstack.year.command import play_year
    from devstack.year.world import RefusedError

    console = Console()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        passed = play_year(console, page=page)
    except (ChildFailedError, RefusedError, OSError) as error:
        console.print(f"[red]km year:[/red] {error}", highlight=False)
        raise typer.Exit(1) from error
    raise typer.Exit(0 if passed else 1)
