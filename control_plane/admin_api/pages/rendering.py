"""Renders a page, and tells the browser to load nothing but its own style."""

import base64
import re
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)


def _moment(value: datetime | None) -> str:
    return "never" if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _hour(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:00")


def _clock(value: datetime | None) -> str:
    return "?" if value is None else value.astimezone(UTC).strftime("%H:%M:%S.%f")[:-3]


def _number(value: int) -> str:
    return f"{value:,}"


def _capitalize_first(value: str) -> str:
    return value[:1].upper() + value[1:]


_environment = Environment(
    loader=PackageLoader("control_plane.admin_api.pages"),
    autoescape=select_autoescape(default=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= {
    "moment": _moment,
    "hour": _hour,
    "clock": _clock,
    "number": _number,
    "capitalize_first": _capitalize_first,
}


def render(template: str, /, **values: Any) -> HTMLResponse:
    """Return the page; see `page_response`."""
    return page_response(_environment.get_template(template).render(**values))


def page_response(text: str) -> HTMLResponse:
    """Answer with a page. Its one `<style>` is allowed by its hash; scripts, images and frames are not at all."""
    style = _STYLE.search(text)
    allowed = base64.b64encode(sha256(style[1].encode()).digest()).decode() if style else ""
    policy = (
        f"default-src 'none'; style-src 'sha256-{allowed}'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )
    return HTMLResponse(text, headers={"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"})
