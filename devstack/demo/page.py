"""The report as one HTML page: server-rendered, no script, readable at phone width, served on loopback."""

import json
from collections import Counter
from pathlib import Path

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, select_autoescape

from devstack.demo.report import Report

CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render_page(report: Report) -> str:
    """Return the page. Everything that came over the wire is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2)
    by_account: dict[str, Counter[str]] = {name: Counter() for name in report.accounts()}
    refused: Counter[tuple[str, str, int]] = Counter()
    for row in report.usage:
        by_account[row.account]["served" if row.outcome == "served" else "refused"] += row.calls
        if row.outcome != "served":
            refused[row.account, row.outcome, row.status] += row.calls
    largest = max((row.calls for row in report.usage), default=1)
    template = environment.get_template("report.html")
    return template.render(report=report, by_account=by_account, refused=refused, largest=largest)


async def serve_page(html: str, *, port: int = 0) -> tuple[web.AppRunner, str]:
    """Serve the page on loopback; return the runner (call `cleanup()` to end it) and the address."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(
            text=html,
            content_type="text/html",
            headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY, "X-Content-Type-Options": "nosniff"},
        )

    application = web.Application()
    application.router.add_get("/", page)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    address = runner.addresses[0]
    return runner, f"http://{address[0]}:{address[1]}/"
