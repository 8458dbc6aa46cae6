"""Writes tables between their marks: plugins.md from the plugins' own schemas, settings.md from the settings,
subscriptions.md from the status machine, stripe.md from who rates which price.

`make docs` runs it; a test says when a page is out of date.
"""  # noqa: INP001 - a folder of pages, not a package

import importlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from control_plane.catalog.prices import MODELS, check_price_params
from control_plane.entrypoints.settings import Settings
from control_plane.stripe_sync.catalog.native import Native, RatedPrice, stripe_rating
from control_plane.subscriptions.model import TRANSITIONS
from gateway_contract import plugins

PAGE = Path(__file__).parent / "plugins.md"
SETTINGS_PAGE = Path(__file__).parent / "settings.md"
SUBSCRIPTIONS_PAGE = Path(__file__).parent / "subscriptions.md"
STRIPE_PAGE = Path(__file__).parent / "stripe.md"

Field = Mapping[str, Any]


def table_of(plugin: str) -> str:
    """Return one plugin's table in Markdown, a line for each field of its `Schema`."""
    module = importlib.import_module(f"kong_plugins.plugins.{plugin.replace('-', '_')}")
    lines = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for entry in module.Schema:
        lines += [_line(name, field) for name, field in entry.items()]
    return "\n".join(lines)


def with_tables(page: str) -> str:
    """Return the page with every table between `<!-- begin:NAME -->` and `<!-- end -->` written anew.

    Raises:
        ValueError: a plugin has no pair of marks, or more than one.
    """
    for plugin in plugins.ALL:
        page = with_table(page, plugin, table_of(plugin))
    return page


def with_table(page: str, name: str, table: str) -> str:
    """Return the page with one table written anew.

    Raises:
        ValueError: it has no pair of marks of this name, or more than one.
    """
    mark = re.compile(rf"(<!-- begin:{name} -->\n).*?(<!-- end -->)", re.DOTALL)
    found = len(mark.findall(page))
    if found != 1:
        raise ValueError(f"{name}: {found} pairs of marks, 1 is needed")
    return mark.sub(lambda match: f"{match[1]}{table}\n{match[2]}", page)


def table_of_settings() -> str:
    """Return the control plane's variables in Markdown, in the order in which they are defined."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "**required**" if field.is_required() else _setting(field.get_default(call_default_factory=True))
        lines.append(f"| `KM_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines)


def _setting(value: object) -> str:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if isinstance(text, bool):
        return f"`{str(text).lower()}`"
    return f"`{text}`" if text or text == 0 else "none"


def table_of_transitions() -> str:
    """Return the steps of a subscription's status in Markdown."""
    lines = ["| from | to | when |", "|---|---|---|"]
    for before, steps in TRANSITIONS.items():
        lines += [f"| `{before}` | `{after}` | {why} |" for after, why in steps.items()]
    return "\n".join(lines)


_TIERS = [{"up_to": 1_000, "unit_amount": "0.01"}, {"up_to": None, "unit_amount": "0.005"}]
_PER_TIER = [{"up_to": 1_000, "flat_amount": "10"}, {"up_to": None, "unit_amount": "0.005"}]
# what a price says, what it counts, and how that is counted
_PRICES: tuple[tuple[str, Mapping[str, Any], str], ...] = (
    ("flat", {"amount": "49"}, ""),
    ("setup_fee", {"amount": "10"}, ""),
    ("per_unit", {"unit_amount": "0.0004"}, "sum"),
    ("overage", {"included": 50_000, "unit_amount": "0.0015"}, "sum"),
    ("graduated", {"tiers": _TIERS}, "sum"),
    ("volume", {"tiers": _TIERS}, "sum"),
    ("package", {"size": 1_000, "amount": "0.80"}, "sum"),
    ("graduated", {"tiers": _PER_TIER}, "sum"),
    ("volume", {"tiers": _PER_TIER}, "sum"),
    ("percentage", {"percent": "2.9"}, "sum"),
    ("commitment", {"amount": "500"}, ""),
    ("per_unit", {"unit_amount": "1"}, "unique"),
    ("per_unit", {"unit_amount": "1"}, "max"),
    ("per_unit", {"unit_amount": "1"}, "latest"),
)


def table_of_ratings() -> str:
    """Return who rates which price, Stripe or we, in Markdown.

    Raises:
        ValueError: a price model is left out.
    """
    if missing := set(MODELS) - {model for model, _, _ in _PRICES}:
        raise ValueError(f"no example of {', '.join(sorted(missing))}")
    lines = [
        "| price | example in USD | meter counts | rated by | at Stripe, or why not |",
        "|---|---|---|---|---|",
    ]
    for model, params, aggregation in _PRICES:
        checked = check_price_params(model, params, currency="USD")
        meter = "requests" if aggregation else None
        price = RatedPrice(model=model, meter=meter, params=checked, currency="USD")
        rating = stripe_rating(price, aggregation or "sum")
        who, how = ("Stripe", _at_stripe(rating)) if isinstance(rating, Native) else ("us", rating.reason)
        example = ", ".join(f"{name} {_short(value)}" for name, value in params.items())
        lines.append(f"| `{model}` | {example} | {aggregation or '-'} | {who} | {how} |")
    return "\n".join(lines)


def _at_stripe(native: Native) -> str:
    if native.kind == "setup_fee":
        return f"one-time price of {native.unit_amount} cents, on the first invoice"
    if native.kind == "flat":
        return f"recurring price of {native.unit_amount} cents, quantity 1"
    if native.tiers:
        tiers = "; ".join(
            f"{'the rest' if tier.up_to is None else f'to {tier.up_to:,}'} at {tier.unit_amount}"
            for tier in native.tiers
        )
        return f"metered, {native.tiers_mode} tiers, in cents: {tiers}"
    each = f" for each {native.package_size:,}, rounded up" if native.package_size else " a unit"
    return f"metered, {native.unit_amount} cents{each}"


def _short(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, list):
        return str(value)
    return "; ".join(
        ("rest" if tier["up_to"] is None else f"to {tier['up_to']:,}")
        + ": "
        + ", ".join(f"{name.removesuffix('_amount')} {tier[name]}" for name in tier if name != "up_to")
        for tier in value
    )


def main() -> None:
    """Rewrite the pages whose tables are out of date."""
    for page in (PAGE, SETTINGS_PAGE, SUBSCRIPTIONS_PAGE, STRIPE_PAGE):
        before = page.read_text(encoding="utf-8")
        after = fresh(page, before)
        if after != before:
            page.write_text(after, encoding="utf-8")
        sys.stdout.write(f"{page.name}: {'written' if after != before else 'up to date'}\n")


def fresh(page: Path, text: str) -> str:
    """Return the text of one of our pages with its tables as they must be."""
    if page == SUBSCRIPTIONS_PAGE:
        return with_table(text, "transitions", table_of_transitions())
    if page == STRIPE_PAGE:
        return with_table(text, "ratings", table_of_ratings())
    return with_tables(text) if page == PAGE else with_table(text, "settings", table_of_settings())


def _line(name: str, field: Field) -> str:
    cells = [f"`{name}`", _type(field), _default(field), field.get("description", "")]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _type(field: Field) -> str:
    kind = str(field["type"])
    if kind in {"array", "set"}:
        return f"{kind} of {_type(field['elements'])}"
    if kind == "map":
        return f"map of {_type(field['keys'])} to {_type(field['values'])}"
    if kind == "record":
        names = [name for entry in field["fields"] for name in entry]
        return f"record of {_codes(names)}"
    if "one_of" in field:
        return "one of " + _codes(field["one_of"])
    if "between" in field:
        low, high = field["between"]
        return f"{kind}, {low} to {high}"
    return kind


def _default(field: Field) -> str:
    if "default" in field:
        value = field["default"]
        if isinstance(value, list):
            return _codes(value) if value else "none"
        return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"
    return "**required**" if field.get("required") else "none"


def _codes(values: Iterable[Any]) -> str:
    return ", ".join(f"`{value}`" for value in values)


if __name__ == "__main__":
    main()
