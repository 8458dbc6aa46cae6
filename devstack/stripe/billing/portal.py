"""The customer portal: configurations, sessions, and what a customer does in it."""

from typing import Any

from devstack.stripe.fields import merged, set_given
from devstack.stripe.paging import page
from devstack.stripe.problems import StripeProblem
from devstack.stripe.routes import Call, route
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object

CONFIGURATION = "billing_portal.configuration"
SESSION = "billing_portal.session"
MOST_PRODUCTS = 10


@route("POST", "/v1/billing_portal/configurations")
def create_configuration(sim: Simulator, call: Call) -> Object:
    made = sim.state.add(configuration(sim, call.params, is_default=not sim.state.all(CONFIGURATION)))
    sim.emit("billing_portal.configuration.created", made)
    return made


def configuration(sim: Simulator, params: dict[str, Any], *, is_default: bool) -> Object:
    now = sim.now()
    login = params.get("login_page", {}).get("enabled", False)
    return {
        "id": sim.state.new_id("bpc", 24),
        "object": CONFIGURATION,
        "active": True,
        "application": None,
        "business_profile": _profile(params.get("business_profile") or {}),
        "created": now,
        "default_return_url": params.get("default_return_url") or None,
        "features": features(sim, params.get("features", {})),
        "is_default": is_default,
        "livemode": False,
        "login_page": {"enabled": login, "url": f"{sim.base_url}/portal/login" if login else None},
        "metadata": merged({}, params.get("metadata") or {}),
        "name": params.get("name") or None,
        "updated": now,
    }


def _profile(given: dict[str, Any]) -> Object:
    return {name: given.get(name) or None for name in ("headline", "privacy_policy_url", "terms_of_service_url")}


def features(sim: Simulator, given: dict[str, Any]) -> Object:
    """All features, off where not given."""
    update = given.get("customer_update", {})
    cancel = given.get("subscription_cancel", {})
    reasons = cancel.get("cancellation_reason", {})
    return {
        "customer_update": {
            "allowed_updates": list(update.get("allowed_updates") or []),
            "enabled": update.get("enabled", False),
        },
        "invoice_history": {"enabled": given.get("invoice_history", {}).get("enabled", False)},
        "payment_method_update": {
            "enabled": given.get("payment_method_update", {}).get("enabled", False),
            "payment_method_configuration": None,
        },
        "subscription_cancel": {
            "cancellation_reason": {
                "enabled": reasons.get("enabled", False),
                "options": list(reasons.get("options") or []),
            },
            "enabled": cancel.get("enabled", False),
            "mode": cancel.get("mode", "at_period_end"),
            "proration_behavior": cancel.get("proration_behavior", "none"),
        },
        "subscription_pause": {"duration": {"interval_options": [], "type": "indefinite"}, "enabled": False},
        "subscription_update": _update_feature(sim, given.get("subscription_update", {})),
    }


def _update_feature(sim: Simulator, given: dict[str, Any]) -> Object:
    products = given.get("products") or []
    if len(products) > MOST_PRODUCTS:
        raise StripeProblem(f"At most {MOST_PRODUCTS} products.", param="features[subscription_update][products]")
    for one in products:
        sim.state.get("product", one["product"], param="features[subscription_update][products]")
    conditions = (given.get("schedule_at_period_end") or {}).get("conditions") or []
    return {
        "billing_cycle_anchor": given.get("billing_cycle_anchor"),
        "default_allowed_updates": list(given.get("default_allowed_updates") or []),
        "enabled": given.get("enabled", False),
        "products": [
            {
                "adjustable_quantity": {"enabled": False, "maximum": None, "minimum": 1},
                "prices": list(one["prices"]),
                "product": one["product"],
            }
            for one in products
        ],
        "proration_behavior": given.get("proration_behavior", "none"),
        "schedule_at_period_end": {"conditions": [{"type": one["type"]} for one in conditions]},
        "trial_update_behavior": given.get("trial_update_behavior", "end_trial"),
    }


@route("GET", "/v1/billing_portal/configurations/{configuration}")
def retrieve_configuration(sim: Simulator, call: Call) -> Object:
    return sim.state.get(CONFIGURATION, call.path["configuration"])


@route("POST", "/v1/billing_portal/configurations/{configuration}")
def update_configuration(sim: Simulator, call: Call) -> Object:
    found, params = sim.state.get(CONFIGURATION, call.path["configuration"]), call.params
    with sim.changing(found, "billing_portal.configuration.updated"):
        set_given(found, params, ("active", "default_return_url", "name"))
        if "metadata" in params:
            found["metadata"] = merged(found["metadata"], params["metadata"])
        if "business_profile" in params:
            found["business_profile"] = {**found["business_profile"], **(params["business_profile"] or {})}
        if "login_page" in params:
            found["login_page"]["enabled"] = params["login_page"]["enabled"]
        if "features" in params:
            asked = features(sim, params["features"])
            found["features"] = {**found["features"], **{name: asked[name] for name in params["features"]}}
        found["updated"] = sim.now()
    return found


@route("GET", "/v1/billing_portal/configurations")
def list_configurations(sim: Simulator, call: Call) -> Object:
    wanted = call.params
    found = [
        one
        for one in sim.state.all(CONFIGURATION)
        if wanted.get("active") in (None, one["active"]) and wanted.get("is_default") in (None, one["is_default"])
    ]
    return page(call, found)


@route("POST", "/v1/billing_portal/sessions")
def create_session(sim: Simulator, call: Call) -> Object:
    params = call.params
    customer = sim.state.get("customer", params["customer"], param="customer")
    chosen = _chosen(sim, params)
    flow = _flow(sim, params.get("flow_data"), chosen, customer["id"])
    secret = sim.state.new_token(40)
    return sim.state.add(
        {
            "id": sim.state.new_id("bps", 24),
            "object": SESSION,
            "configuration": chosen["id"],
            "created": sim.now(customer["id"]),
            "customer": customer["id"],
            "customer_account": None,
            "flow": flow,
            "livemode": False,
            "locale": params.get("locale"),
            "on_behalf_of": None,
            "return_url": params.get("return_url") or chosen["default_return_url"],
            "url": f"{call.base_url or sim.base_url}/portal/{secret}",
            "_secret": secret,
        }
    )


def _chosen(sim: Simulator, params: dict[str, Any]) -> Object:
    if "configuration" in params:
        chosen = sim.state.get(CONFIGURATION, params["configuration"], param="configuration")
        if not chosen["active"]:
            raise StripeProblem("The configuration is not active.", param="configuration")
        return chosen
    for one in sim.state.where(CONFIGURATION, is_default=True):
        return one
    raise StripeProblem(
        "You can't create a portal session in test mode until you save your customer portal settings in test mode "
        "at https://dashboard.stripe.com/test/settings/billing/portal."
    )


def _flow(sim: Simulator, given: dict[str, Any] | None, chosen: Object, customer: str) -> Object | None:
    if given is None:
        return None
    kind = given["type"]
    needs = {"payment_method_update": "payment_method_update", "subscription_cancel": "subscription_cancel"}
    feature = needs.get(kind, "subscription_update" if kind.startswith("subscription_update") else None)
    if feature and not chosen["features"][feature]["enabled"]:
        raise StripeProblem(
            f"The {kind} flow cannot be used: the feature is disabled in the portal configuration.",
            param="flow_data[type]",
        )
    details = given.get(kind) if kind != "payment_method_update" else None
    if details and "subscription" in details:
        sub = sim.state.get("subscription", details["subscription"], param=f"flow_data[{kind}][subscription]")
        if sub["customer"] != customer:
            raise StripeProblem("The subscription belongs to another customer.", param="flow_data")
    elif kind.startswith("subscription"):
        raise StripeProblem("Missing required param: subscription.", param=f"flow_data[{kind}][subscription]")
    after = given.get("after_completion", {"type": "portal_homepage"})
    shown = {"hosted_confirmation": None, "redirect": None, **after}
    flow: Object = {"after_completion": shown, "type": kind}
    for name in ("subscription_cancel", "subscription_update", "subscription_update_confirm", "customer_update"):
        flow[name] = details if name == kind else None
    return flow
