"""`km dev` and `km demo`: the whole stack on this machine."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from devstack.children import ChildFailedError
from devstack.ports import preferred_port
from devstack.stack import Stack
from devstack.stack_layout import Ports

PROXY_PORT, KONG_ADMIN_PORT, CONTROL_PORT = 8000, 8001, 8090


def register(app: typer.Typer) -> None:
    """Add this package's commands to `km`."""
    app.command("dev")(dev)
    app.command("demo")(demo)


def dev(
    data_dir: Annotated[Path, typer.Option(help="Where everything is kept between runs.")] = Path(".km/dev"),
) -> None:
    """Run the whole stack on this machine (stores, gateway, sample API, server) until Ctrl-C.

    Needs no root, no Docker and no network; for development only.
    """
    console = Console()
    ports = Ports(
        proxy=preferred_port(PROXY_PORT),
        kong_admin=preferred_port(KONG_ADMIN_PORT),
        control=preferred_port(CONTROL_PORT),
    )
    stack = Stack(data_dir, ports=ports)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    try:
        with console.status("starting stores, gateway and server ..."):
            stack.start()
    except ChildFailedError as error:
        console.print(f"[red]km dev:[/red] {error}", highlight=False)
        raise typer.Exit(1) from error
    try:
        console.print(_overview(stack))
        console.print("Ctrl-C ends it; the data stays.")
        stopping.wait()
    finally:
        with console.status("stopping ..."):
            stack.stop()


def demo(
    plans: Annotated[Path, typer.Option(help="The catalog to load.")] = Path("plans.yml"),
    page: Annotated[Path, typer.Option(help="Where the page is written.")] = Path(".km/demo/report.html"),
) -> None:
    """Drive real traffic through a fresh stack; show usage, limits and invoices; fail if a figure differs."""
    from devstack.demo.control import ControlError
    from devstack.demo.run import run_demo

    console = Console()
    try:
        passed = run_demo(console, plans_path=plans, page_path=page)
    except (ChildFailedError, ControlError, OSError) as error:
        console.print(f"[red]km demo:[/red] {error}", highlight=False)
        raise typer.Exit(1) from error
    raise typer.Exit(0 if passed else 1)


def _overview(stack: Stack) -> Table:
    table = Table(show_header=False, box=None)
    for name, value in (
        ("sample API through the gateway", f"{stack.proxy_url}/weather/v1/current/oslo"),
        ("gateway's Admin API", stack.admin_api_url),
        ("control plane", stack.control_url),
        ("database", stack.database_url),
        ("Redis", stack.redis_url),
        ("logs", str(stack.data_dir / "logs")),
        ("for km", f"export KM_URL={stack.control_url} KM_TOKEN={stack.admin_token}"),
    ):
        table.add_row(name, value)
    return table
