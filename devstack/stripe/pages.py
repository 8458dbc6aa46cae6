"""What the simulated account holds, for people: `/` of the simulator."""

import html
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from devstack.stripe.rendering import plain_values
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object

ROWS = 50
STYLE = """
body{font:16px/1.4 system-ui,sans-serif;margin:0 auto;padding:1rem;max-width:70rem;color:#1a1f36}
h1{font-size:1.3rem}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}
p.note{color:#4f566b;margin:.2rem 0}.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .6rem .35rem 0;
border-bottom:1px solid #e3e8ee;vertical-align:top;white-space:nowrap}th{color:#4f566b;font-weight:600}
a{color:#4b45c6}pre{overflow-x:auto;background:#f6f8fa;
padding:.8rem;font-size:.85rem}.bad{color:#a4133c;font-weight:600}
@media(prefers-color-scheme:dark){body{background:#14171f;color:#e6e8ee}th,p.note{color:#a3acba}
th,td{border-color:#2d3340}a{color:#a5a0ff}pre{background:#1d212c}.bad{color:#ff8fa3}}
"""
Column = tuple[str, Callable[[Object], Any]]


def page_router(sim: Simulator) -> APIRouter:
    router = APIRouter()

    @router.get("/", response_class=HTMLResponse)
    async def overview() -> str:
        return _page("Stripe simulator", _overview(sim))

    @router.get("/objects/{kind}/{identifier}", response_class=HTMLResponse)
    async def one(kind: str, identifier: str) -> HTMLResponse:
        found = sim.state.find(kind, identifier)
        if found is None:
            return HTMLResponse(_page("Not here", "<p>There is no such object.</p>"), status_code=404)
        shown = {name: value for name, value in plain_values(found).items() if not name.startswith("_")}
        body = (
            f'<p><a href="/">All</a></p><pre>{html.escape(json.dumps(shown, indent=2, ensure_ascii=False))}</pre>'
        )
        return HTMLResponse(_page(identifier, body))

    return router


def _overview(sim: Simulator) -> str:
    def customer(one: Object) -> str:
        kept = sim.state.find("customer", one["customer"]) or {}
        return str(kept.get("name") or kept.get("email") or one["customer"])

    parts = [
        f'<p class="note">Its time: {_moment(sim.now())} UTC. Nothing here is real: no card is charged.</p>',
        _wrongs(sim),
        _table(
            sim,
            "Customers",
            "customer",
            (("Name", _name), ("E-mail", lambda one: one["email"] or ""), ("Made", _made)),
        ),
        _table(
            sim,
            "Subscriptions",
            "subscription",
            (("Customer", customer), ("Status", lambda one: one["status"]), ("Period until", _period_end)),
        ),
        _table(
            sim,
            "Invoices",
            "invoice",
            (
                ("Number", lambda one: one["number"] or "draft"),
                ("Customer", customer),
                ("Total", lambda one: f"{one['total']} {one['currency']} (minor units)"),
                ("Status", lambda one: one["status"] or ""),
                ("Made", _made),
            ),
        ),
        _table(sim, "Events", "event", (("Type", lambda one: one["type"]), ("Made", _made))),
    ]
    return "".join(parts)


def _wrongs(sim: Simulator) -> str:
    if not sim.violations:
        return ""
    rows = "".join(
        f"<li>{html.escape(one['where'])}: {html.escape(one['problem'][-300:])}</li>" for one in sim.violations
    )
    return f'<p class="bad">Mistakes of the simulator itself</p><ul>{rows}</ul>'


def _table(sim: Simulator, title: str, kind: str, columns: tuple[Column, ...]) -> str:
    """The newest first; the first column leads to the whole object, ids stand last."""
    found = list(reversed(sim.state.all(kind)))
    if not found:
        return f'<h2>{html.escape(title)}</h2><p class="note">None yet.</p>'
    head = "".join(f"<th>{html.escape(name)}</th>" for name in (*(name for name, _ in columns), "Id"))
    rows = "".join(_row(kind, one, columns) for one in found[:ROWS])
    more = f'<p class="note">The newest {ROWS} of {len(found)}.</p>' if len(found) > ROWS else ""
    return f'<h2>{html.escape(title)}</h2>{more}<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'


def _row(kind: str, one: Object, columns: tuple[Column, ...]) -> str:
    shown = [html.escape(str(value(one))) for _, value in columns]
    shown[0] = f'<a href="/objects/{html.escape(kind)}/{html.escape(one["id"])}">{shown[0]}</a>'
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in (*shown, html.escape(one["id"]))) + "</tr>"


def _name(one: Object) -> str:
    return str(one["name"] or one["email"] or one["id"])


def _made(one: Object) -> str:
    return _moment(one["created"])


def _period_end(one: Object) -> str:
    items = one["items"]["data"]
    return _moment(max(item["current_period_end"] for item in items)) if items else ""


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style><h1>{html.escape(title)}</h1>{body}</html>"
    )
