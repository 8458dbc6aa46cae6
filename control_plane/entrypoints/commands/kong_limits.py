"""What a plan would say in place of Kong's rate-limiting plugin: its limits and its quota, and what differs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PLUGINS = ("rate-limiting", "rate-limiting-advanced")
WINDOWS = ("second", "minute", "hour", "day")
_PLACES = (("services", "service"), ("routes", "route"), ("consumers", "consumer"), ("consumer_groups", "group"))

SLIDING = (
    "Kong's windows are fixed: around the end of one, twice the limit can pass. A plan's windows slide: in no "
    "interval of that length does more pass. Callers who send in bursts at the turn of a minute see more 429s."
)
TOGETHER = (
    "Kong counts for each place where the plugin is attached. A plan's limits hold for the whole subscription: "
    "all routes of the API product and all keys of the account together."
)
ALWAYS = (SLIDING, TOGETHER)
_MONTH = (
    "Kong's month is the calendar month (UTC). A quota follows the account's billing period, which begins when it "
    "subscribed; refused and failed calls (5xx) burn none of it."
)
_POLICIES = {
    "local": "policy local: each Kong node counted by itself, so N nodes let N times the limit pass. A plan's "
    "limits hold over all nodes.",
    "cluster": "policy cluster: nodes shared counters in Kong's database. A plan's limits are kept in Redis.",
    "redis": "policy redis: nodes shared counters in Redis, read before a call and raised after it, so that "
    "concurrent calls could pass together. A plan's limits are checked and raised in one step.",
}
_NO_PLACE = {
    "ip": "limit_by ip has no place in a plan: keep this plugin beside km-monetize.",
    "service": "limit_by service limits all callers together, which no plan does: keep this plugin.",
    "header": "limit_by header has no place in a plan: keep this plugin beside km-monetize.",
    "path": "limit_by path limits all callers together, which no plan does: keep this plugin.",
}


@dataclass(frozen=True, slots=True)
class Suggestion:
    """For one attached plugin: where it is, lines of a plan, and what is different there, in words."""

    place: str
    plan_lines: tuple[str, ...]
    differences: tuple[str, ...]

    @property
    def text(self) -> str:
        lines = [f"# {self.place}", *self.plan_lines, *(f"# {words}" for words in self.differences)]
        return "\n".join(lines)


def suggest_plans(documents: Sequence[Mapping[str, Any]]) -> list[Suggestion]:
    """Return a suggestion for each rate-limiting plugin in the files, in their order."""
    return [
        _suggestion(plugin, place)
        for document in documents
        for plugin, place in _attached(document)
        if plugin.get("name") in PLUGINS
    ]


def _suggestion(plugin: Mapping[str, Any], place: str) -> Suggestion:
    place = f"{plugin['name']} on {place}"
    config = plugin.get("config")
    config = config if isinstance(config, dict) else {}
    if plugin["name"] == "rate-limiting-advanced":
        return Suggestion(place, (), ("its windows are written differently: set the plan's limits by hand.",))
    limits = [(period, _number(config.get(period))) for period in (*WINDOWS, "month", "year")]
    given = {period: limit for period, limit in limits if limit is not None}
    by = config.get("limit_by", "consumer")
    if by in _NO_PLACE:
        return Suggestion(place, (), (_NO_PLACE[by],))
    lines: list[str] = []
    windows = [period for period in WINDOWS if period in given]
    if windows:
        lines += ["limits:", *(f"  - {{ limit: {given[period]}, per: {period} }}" for period in windows)]
    if "month" in given:
        lines.append(f"quota: {{ units: {given['month']}, on_exceed: refuse }} # or charge, with a price")
    if config.get("fault_tolerant") is False:
        lines.append("redis_down: closed")
    return Suggestion(place, tuple(lines), tuple(_differences(config, given, str(by))))


def _differences(config: Mapping[str, Any], given: Mapping[str, int], by: str) -> Iterator[str]:
    if by == "credential":
        yield "limit_by credential: give each key its share with `km keys update KEY --limit 5/second`."
    if "month" in given:
        yield _MONTH
    if "year" in given:
        yield "A limit a year has no place in a monthly plan: use `interval: year` with a quota."
    if any(isinstance(config.get(name), float) and config[name] % 1 for name in (*WINDOWS, "month")):
        yield "A limit with decimals was cut to a whole number."
    yield _POLICIES.get(str(config.get("policy", "local")), "Its policy is not one of Kong's own.")
    if config.get("error_code", 429) != 429 or "error_message" in config:  # noqa: PLR2004 - Kong's own default
        yield "Refusals are 429 with a problem body; error_code and error_message have no place in a plan."
    if config.get("hide_client_headers"):
        yield "Limits are always told in the answer's headers; take them out with response-transformer if need be."


def _attached(document: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str]]:
    for plugin in _list(document, "plugins"):
        places = [f"{kind} {_name(plugin[kind])}" for kind in ("service", "route", "consumer") if plugin.get(kind)]
        yield plugin, ", ".join(places) or "every route"
    for name, kind in _PLACES:
        for entity in _list(document, name):
            place = f"{kind} {_name(entity)}"
            yield from ((plugin, place) for plugin in _list(entity, "plugins"))
            for route in _list(entity, "routes") if kind == "service" else ():
                yield from ((plugin, f"route {_name(route)}") for plugin in _list(route, "plugins"))


def _name(entity: Any) -> str:
    if isinstance(entity, dict):
        names = (entity.get(name) for name in ("name", "username", "custom_id", "id"))
        return next((name for name in names if isinstance(name, str)), "without a name")
    return str(entity)


def _list(holder: Mapping[str, Any], name: str) -> Iterable[Mapping[str, Any]]:
    found = holder.get(name)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _number(value: Any) -> int | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and value >= 1
    return int(value) if usable else None
