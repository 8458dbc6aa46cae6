"""What `km plans` prints of plans, of changes and of whom these concern."""

import json
from typing import Any

import typer

from control_plane.entrypoints.commands.output import print_json

WORDS = {"create": "create", "update": "update", "new_version": "new version"}
SHOWN = 30
WIDEST = 100
PER = {1_000: "s", 60_000: "min", 3_600_000: "h", 86_400_000: "day"}


def print_changes(diff: dict[str, Any], *, nothing: str, as_json: bool) -> None:
    """Print the changes of a diff, below each new version whom it concerns."""
    if as_json:
        print_json(diff)
        return
    created = {(change["entity_type"], change["code"]) for change in diff["changes"] if change["kind"] == "create"}
    impact = {one["plan"]: one for one in diff["impact"]}
    for change in diff["changes"]:
        # that a new plan has a first version goes without saying
        if change["kind"] != "new_version" or (change["entity_type"], change["code"]) not in created:
            typer.echo(f"{change['entity_type'].replace('_', '-')} {change['code']}: {WORDS[change['kind']]}")
            print_fields_changed(change["fields"])
        if change["kind"] == "new_version" and change["code"] in impact:
            print_impact(impact[change["code"]])
            if change["entity_type"] == "plan":
                typer.echo(f"  with their use: km what-if start {change['code']} --file FILE")
    if not diff["changes"]:
        typer.echo(nothing)
    for name in diff["left_alone"]:
        typer.echo(f"left alone, not in the file: {name}", err=True)


def print_fields_changed(fields: list[dict[str, Any]]) -> None:
    """Print what differs, a line for each field; long values are cut, `--json` tells all of them."""
    for field in fields[:SHOWN]:
        typer.echo(f"  {field['field']}: {_value(field['before'])} -> {_value(field['after'])}")
    if len(fields) > SHOWN:
        typer.echo(f"  ... and {len(fields) - SHOWN} more")


def _value(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."


def print_impact(impact: dict[str, Any]) -> None:
    """Print who has a plan, by version and currency, and what recurs each month now and on the new terms."""
    for one in impact["versions"]:
        count = one["subscriptions"]
        who = f"{count:,} subscription{'' if count == 1 else 's'}"
        who += "" if one["paying"] == count else f", {one['paying']:,} of them paying"
        after = one["new_recurring"]
        then = f"not sold in {one['currency']}" if after is None else f"{after['text']} on the new terms"
        typer.echo(f"  has version {one['version']}: {who}; {one['recurring']['text']} a month, {then}")


def version_summary(version: dict[str, Any] | None, *, kind: str = "plan") -> dict[str, str]:
    """Return a version's columns: what it includes, limits, and costs."""
    if version is None:
        return {"version": "-", "quota": "-", "limits": "-", "price": "not on sale"}
    return {
        "version": str(version["version"]),
        "quota": _quota(version, kind),
        "limits": _limits(version),
        "price": _prices(version),
    }


def _quota(version: dict[str, Any], kind: str) -> str:
    if version["quota_units"] is None:
        return "none"
    if kind == "add_on":
        return f"{version['quota_units']:,} more"
    quota = f"{version['quota_units']:,}"
    quota += " then refused" if version["quota_hard"] else " then charged" if version["prices"] else ""
    if version["quota_cap_units"] is not None:
        quota += f", refused above {version['quota_cap_units']:,}"
    return quota


def _limits(version: dict[str, Any]) -> str:
    limits = [f"{w['limit']:,}/{PER.get(w['window_ms'], str(w['window_ms']) + ' ms')}" for w in version["windows"]]
    if version["concurrency"] is not None:
        limits.append(f"{version['concurrency']['limit']:,} at a time")
    return ", ".join(limits) or "-"


def _prices(version: dict[str, Any]) -> str:
    prices = [_price(price, version) for price in version["prices"]]
    text = " + ".join(prices) or ("by quote" if version["by_quote"] else "free")
    trial, others = version["trial"], version["currencies"][1:]
    text += f", {trial['days']} days free" if trial else ""
    text += ", prepaid" if version["payment"] == "prepaid" else ""
    return text + (f" (also {', '.join(others)})" if others else "")


def _price(price: dict[str, Any], version: dict[str, Any]) -> str:
    params, currency, meter = price["params"], version["currency"], price["meter"]
    words = {
        "flat": "{amount} {currency}/{interval}",
        "setup_fee": "{amount} {currency} once",
        "commitment": "at least {amount} {currency}/{interval}",
        "percentage": "{percent} % of {meter}",
        "package": "{amount} {currency}/{size:,} {meter}",
    }
    text = words.get(price["model"])
    if text is not None:
        return text.format(**params, currency=currency, interval=version["interval"], meter=meter)
    if "unit_amount" in params:
        return f"{params['unit_amount']} {currency}/{meter.removesuffix('s')}"
    return f"{price['model']} on {meter}"
