"""`km demo`: plays the scenario on a fresh stack, shows the report, fails if one figure differs."""

import asyncio
import tempfile
import threading
import time
from pathlib import Path

import aiohttp
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from devstack.demo.control import ControlClient
from devstack.demo.figures import compare, count_events, read_invoices, read_usage, wait_for_rollups
from devstack.demo.page import render_page, serve_page
from devstack.demo.purchase import play_purchase, sells_through_stripe
from devstack.demo.report import Report
from devstack.demo.scenario import NOTE, Customer, planned_requests, play, set_up_customers
from devstack.demo.terminal import print_report
from devstack.demo.traffic import Traffic
from devstack.overview import print_overview, until_interrupted, well_known_ports
from devstack.stack import Stack

ROLLUP_SECONDS = 60.0


async def play_on(stack: Stack, console: Console, *, plans: str) -> Report:
    """Play the scenario on a running stack and return the report.

    Raises:
        ControlError: the product refused something that the scenario needs.
    """
    async with ControlClient(stack.control_url, stack.admin_token) as control:
        await control.post("/plans/apply", yaml=plans)
        await control.post("/gateway/push")
        customers = await set_up_customers(control)
        console.print(f"[dim]two accounts: {', '.join(f'{c.name} on {c.plan_name}' for c in customers)}")
        started = time.monotonic()
        async with Traffic(stack.proxy_url) as traffic:
            await _send(traffic, customers, console)
        seconds = time.monotonic() - started
        with console.status("waiting for the last calls to show in the rollups ..."):
            behind = await wait_for_rollups(control, traffic.ledger.total, timeout_seconds=ROLLUP_SECONDS)
        usage = await read_usage(control, customers)
        stored = await count_events(control, customers)
        invoices = await read_invoices(control, customers)
        purchase = None
        if stack.simulated_stripe is not None and sells_through_stripe(plans):
            with console.status("buying a plan at the simulated Stripe ..."):
                purchase = await play_purchase(
                    control,
                    stack.simulated_stripe,
                    plans=plans,
                    proxy_url=stack.proxy_url,
                    page_url=f"{stack.control_url}/docs",
                )
    return Report(
        requests=traffic.ledger.total,
        broken=traffic.ledger.broken,
        seconds=seconds,
        usage=usage,
        refusals=tuple(traffic.refusals.values()),
        invoices=invoices,
        checks=compare(traffic.ledger, usage, stored, invoices),
        purchase=purchase,
        notes=(NOTE, f"The last call showed in the rollups {behind:.1f} s after its answer."),
    )


async def _send(traffic: Traffic, customers: tuple[Customer, Customer], console: Console) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("requests through the gateway", total=planned_requests())
        await play(traffic, *customers, lambda: progress.advance(task))


async def _serve(html: str, console: Console, stopping: threading.Event | None) -> None:
    runner, url = await serve_page(html)
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            answer.raise_for_status()
        console.print(f"served at [bold]{url}[/bold]{'; Ctrl-C ends it all' if stopping else ''}", highlight=False)
        if stopping is not None:
            await asyncio.to_thread(stopping.wait)
    finally:
        await runner.cleanup()


def run_demo(console: Console, *, plans_path: Path, page_path: Path, keep: bool = False) -> bool:
    """Start a stack of its own, play, show, stop. Return whether every figure was equal.

    With `keep`, stack and page stay up until Ctrl-C.
    """
    with tempfile.TemporaryDirectory(prefix="km-demo-") as directory:
        stack = Stack(
            Path(directory), fast=True, ports=well_known_ports() if keep else None, mailbox=keep, stripe=True
        )
        try:
            with console.status("starting stores, gateway, shipper and server ..."):
                stack.start()
            report = asyncio.run(play_on(stack, console, plans=plans_path.read_text()))
            html = render_page(report)
            page_path.parent.mkdir(parents=True, exist_ok=True)
            page_path.write_text(html)
            print_report(console, report)
            console.print(f"\nThe same as a page: [bold]{page_path}[/bold]", highlight=False)
            console.print(_verdict(report))
            console.print("[dim]A year of customers, each bill held to one made by hand, takes a minute: km year")
            _show_page(html, stack, console, keep=keep)
        finally:
            with console.status("stopping ..."):
                stack.destroy()
    return report.ok


def _show_page(html: str, stack: Stack, console: Console, *, keep: bool) -> None:
    """Serve the page: for as long as it takes to read it over HTTP, or until Ctrl-C."""
    stopping = until_interrupted() if keep else None
    if keep:
        console.print()
        print_overview(console, stack)
    asyncio.run(_serve(html, console, stopping))


def _verdict(report: Report) -> str:
    if report.ok:
        cents = "; what Stripe invoices, too, to the cent" if report.purchase is not None else ""
        return f"[bold green]All {len(report.checks)} figures are equal, to the unit{cents}."
    wrong = report.wrong
    return f"[bold red]{wrong} figures differ; {report.broken} requests got no answer."
