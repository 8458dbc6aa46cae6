"""Tax rates that callers set, and automatic tax by registrations."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from devstack.stripe.billing.totals import Taxing
from devstack.stripe.fields import merge_metadata, set_given
from devstack.stripe.paging import page
from devstack.stripe.problems import StripeProblem
from devstack.stripe.routes import Call, route
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object

STANDARD_RATES = {
    "AT": "20",
    "AU": "10",
    "BE": "21",
    "CA": "5",
    "CH": "8.1",
    "DE": "19",
    "ES": "21",
    "FR": "20",
    "GB": "20",
    "IE": "23",
    "IT": "22",
    "JP": "10",
    "NL": "21",
    "SE": "25",
}
STATE_RATES = {"CA": "8.625", "NY": "8.875", "TX": "8.25", "WA": "10.35"}
"""Of the United States; states not named here have no tax in the simulator."""
TAX_NAMES = {"US": ("Sales Tax", "sales_tax"), "JP": ("JCT", "jct"), "AU": ("GST", "gst"), "CA": ("GST", "gst")}


ZIP_DIGITS = 5


@dataclass(frozen=True)
class Located:
    """Where a customer is for tax; `known` False: no address that taxes can be worked out from."""

    known: bool
    country: str = ""
    state: str = ""


def located(customer: Object) -> Located:
    address = customer.get("address") or (customer.get("shipping") or {}).get("address") or {}
    country = address.get("country")
    if not country:
        return Located(known=False)
    if country == "US":
        code = address.get("postal_code") or ""
        return Located(
            known=bool(address.get("state") and len(code) >= ZIP_DIGITS),
            country="US",
            state=address.get("state") or "",
        )
    return Located(known=True, country=country)


def automatic(sim: Simulator, customer: Object, price: Object | None) -> Taxing | None:
    """What automatic tax takes of a line. None: nothing, as without a registration (which is no error)."""
    where = located(customer)
    if not where.known or customer.get("tax_exempt") == "exempt" or not _registered(sim, where):
        return None
    percent = (
        STATE_RATES.get(where.state, "0") if where.country == "US" else STANDARD_RATES.get(where.country, "0")
    )
    if customer.get("tax_exempt") == "reverse" and where.country != "US":
        return None
    inclusive = price is not None and price.get("tax_behavior") == "inclusive"
    rate = _rate_of(sim, where, percent, inclusive=inclusive)
    return Taxing(rate["id"], Decimal(percent), inclusive)


def _registered(sim: Simulator, where: Located) -> bool:
    now = sim.now()
    for one in sim.state.where("tax.registration", country=where.country):
        if one["active_from"] > now or (one["expires_at"] is not None and one["expires_at"] <= now):
            continue
        if where.country != "US" or one["country_options"]["us"]["state"] == where.state:
            return True
    return False


def _rate_of(sim: Simulator, where: Located, percent: str, *, inclusive: bool) -> Object:
    key = (where.country, where.state if where.country == "US" else None, percent, inclusive)
    for one in sim.state.all("tax_rate"):
        if one.get("_automatic") == key:
            return one
    name, kind = TAX_NAMES.get(where.country, ("VAT", "vat"))
    made = tax_rate(
        sim,
        display_name=name,
        percentage=float(percent),
        inclusive=inclusive,
        country=where.country,
        state=where.state or None,
        jurisdiction=where.state or where.country,
        tax_type=kind,
        active=False,
    )
    made["_automatic"] = key
    return sim.state.add(made)


def tax_rate(sim: Simulator, **given: Any) -> Object:
    return {
        "id": sim.state.new_id("txr", 24),
        "object": "tax_rate",
        "active": True,
        "country": None,
        "created": sim.now(),
        "description": None,
        "effective_percentage": given["percentage"],
        "flat_amount": None,
        "jurisdiction": None,
        "jurisdiction_level": None,
        "livemode": False,
        "metadata": {},
        "rate_type": "percentage",
        "state": None,
        "tax_type": None,
        **given,
    }


def of_rate(rate: Object) -> Taxing:
    return Taxing(rate["id"], Decimal(str(rate["percentage"])), rate["inclusive"])


@route("POST", "/v1/tax_rates")
def create_tax_rate(sim: Simulator, call: Call) -> Object:
    rate = sim.state.add(tax_rate(sim, **{**call.params, "metadata": call.params.get("metadata") or {}}))
    sim.emit("tax_rate.created", rate)
    return rate


@route("GET", "/v1/tax_rates/{tax_rate}")
def retrieve_tax_rate(sim: Simulator, call: Call) -> Object:
    return sim.state.get("tax_rate", call.path["tax_rate"])


@route("POST", "/v1/tax_rates/{tax_rate}")
def update_tax_rate(sim: Simulator, call: Call) -> Object:
    rate = sim.state.get("tax_rate", call.path["tax_rate"])
    with sim.changing(rate, "tax_rate.updated"):
        set_given(rate, call.params, ("active", "display_name", "description", "country", "jurisdiction", "state"))
        merge_metadata(rate, call.params)
    return rate


@route("GET", "/v1/tax_rates")
def list_tax_rates(sim: Simulator, call: Call) -> Object:
    wanted = call.params
    found = [
        one
        for one in sim.state.all("tax_rate")
        if wanted.get("active") in (None, one["active"]) and wanted.get("inclusive") in (None, one["inclusive"])
    ]
    return page(call, found)


@route("POST", "/v1/tax/registrations")
def create_registration(sim: Simulator, call: Call) -> Object:
    params, now = call.params, sim.now()
    active_from = now if params["active_from"] == "now" else params["active_from"]
    country = params["country"]
    if country == "US" and "state" not in params["country_options"].get("us", {}):
        raise StripeProblem("A registration in the US needs a state.", param="country_options[us][state]")
    options = {
        name: {"type": "standard", **one} if name != "us" else one
        for name, one in params["country_options"].items()
    }
    return sim.state.add(
        {
            "id": sim.state.new_id("taxreg"),
            "object": "tax.registration",
            "active_from": active_from,
            "country": country,
            "country_options": options,
            "created": now,
            "expires_at": params.get("expires_at"),
            "livemode": False,
            "status": "active" if active_from <= now else "scheduled",
        }
    )


@route("GET", "/v1/tax/registrations")
def list_registrations(sim: Simulator, call: Call) -> Object:
    wanted = call.params.get("status", "all")
    return page(call, [one for one in sim.state.all("tax.registration") if wanted in ("all", one["status"])])


@route("POST", "/v1/tax/registrations/{id}")
def update_registration(sim: Simulator, call: Call) -> Object:
    registration = sim.state.get("tax.registration", call.path["id"])
    if "expires_at" in call.params:
        now = sim.now()
        given = call.params["expires_at"]
        registration["expires_at"] = now if given == "now" else given or None
        if registration["expires_at"] is not None and registration["expires_at"] <= now:
            registration["status"] = "expired"
    return registration


@route("GET", "/v1/tax/settings")
def retrieve_tax_settings(sim: Simulator, call: Call) -> Object:  # noqa: ARG001 - a handler
    return {
        "object": "tax.settings",
        "defaults": {"provider": "stripe", "tax_behavior": "exclusive", "tax_code": "txcd_10103001"},
        "head_office": {
            "address": {
                "city": None,
                "country": "US",
                "line1": None,
                "line2": None,
                "postal_code": "94103",
                "state": "CA",
            }
        },
        "livemode": False,
        "status": "active",
        "status_details": {"active": {}},
    }
