"""A document as one HTML page: no script, no picture, nothing loaded from elsewhere."""

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from control_plane.billing.documents.model import Document

_environment = Environment(
    loader=PackageLoader("control_plane.billing.documents", package_path=""),
    autoescape=select_autoescape(default=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render_html(document: Document) -> str:
    """Return the page; reads well on a phone and prints on A4. Every text is escaped."""
    return _environment.get_template("invoice.html").render(document=document)
