"""A document as one HTML page: no script, no picture, nothing loaded from elsewhere."""

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from control_plane.billing.documents.model import WHOLE, Document

_environment = Environment(
    loader=PackageLoader("control_plane.billing.documents", package_path=""),
    autoescape=select_autoescape(default=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _unbroken(text: str) -> Markup:
    """Return a text, escaped, in which dates and the numbers of documents stay on one line."""
    parts, end = [], 0
    for found in WHOLE.finditer(text):
        parts += [escape(text[end : found.start()]), Markup('<span class="whole">{}</span>').format(found[0])]
        end = found.end()
    return Markup("").join([*parts, escape(text[end:])])


_environment.filters["unbroken"] = _unbroken


def render_html(document: Document) -> str:
    """Return the page; reads well on a phone and prints on A4. Every text is escaped."""
    return _environment.get_template("invoice.html").render(document=document)
