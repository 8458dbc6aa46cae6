"""The few pieces the pages for customers are made of."""

import html
from collections.abc import Iterable

from fastapi.responses import HTMLResponse

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:32rem;margin:2rem auto;padding:0 1rem;color:#1a1f36}
h1{font-size:1.3rem}
h2{font-size:1.05rem;margin:1.4rem 0 .4rem}ul{padding-left:1.2rem}
p.note{color:#4f566b;font-size:.9rem}p.problem{color:#a4133c;font-weight:600}
form{display:grid;gap:.6rem;margin:1rem 0}label{display:grid;gap:.2rem}
input{font:inherit;padding:.4rem .5rem;border:1px solid #a3acba;border-radius:6px}
button{font:inherit;padding:.6rem 1rem;border:0;border-radius:6px;background:#4b45c6;color:#fff;cursor:pointer}
button.quiet{background:#e3e8ee;color:#1a1f36}a{color:#4b45c6}
@media(prefers-color-scheme:dark){body{background:#14171f;color:#e6e8ee}p.note{color:#a3acba}
button.quiet{background:#2d3340;color:#e6e8ee}a{color:#a5a0ff}p.problem{color:#ff8fa3}
input{background:#1d212c;color:inherit}}
"""


def show(title: str, body: str, *, problem: str = "", status: int = 200) -> HTMLResponse:
    """A whole page. `body` is HTML; the title and the problem are not."""
    said = f'<p class="problem" role="alert">{html.escape(problem)}</p>' if problem else ""
    return HTMLResponse(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body><h1>{html.escape(title)}</h1>"
        f'<p class="note">A page of the Stripe simulator: no card is charged.</p>{said}{body}</body></html>',
        status_code=status,
    )


def button(name: str, value: str, words: str, *, quiet: bool = False) -> str:
    kind = ' class="quiet"' if quiet else ""
    return f'<button{kind} name="{name}" value="{html.escape(value)}">{html.escape(words)}</button>'


def form(action: str, inside: Iterable[str]) -> str:
    return f'<form method="post" action="{html.escape(action)}">{"".join(inside)}</form>'
