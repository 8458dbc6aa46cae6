"""Test clocks of customers."""

from functools import partial

from devstack.stripe.clock import Clock
from devstack.stripe.paging import page
from devstack.stripe.problems import StripeProblem
from devstack.stripe.routes import Call, route
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object

KIND = "test_helpers.test_clock"
KEPT_SECONDS = 30 * 86_400


@route("POST", "/v1/test_helpers/test_clocks")
def create_clock(sim: Simulator, call: Call) -> Object:
    made = sim.state.add(
        {
            "id": sim.state.new_id("clock"),
            "object": KIND,
            "created": sim.now(),
            "deletes_after": sim.now() + KEPT_SECONDS,
            "frozen_time": call.params["frozen_time"],
            "livemode": False,
            "name": call.params.get("name"),
            "status": "ready",
            "status_details": {},
        }
    )
    sim.test_clocks[made["id"]] = Clock(call.params["frozen_time"])
    sim.emit("test_helpers.test_clock.created", made)
    return made


@route("GET", "/v1/test_helpers/test_clocks/{test_clock}")
def retrieve_clock(sim: Simulator, call: Call) -> Object:
    return sim.state.get(KIND, call.path["test_clock"])


@route("GET", "/v1/test_helpers/test_clocks")
def list_clocks(sim: Simulator, call: Call) -> Object:
    return page(call, sim.state.all(KIND))


@route("POST", "/v1/test_helpers/test_clocks/{test_clock}/advance")
def advance_clock(sim: Simulator, call: Call) -> Object:
    clock = sim.state.get(KIND, call.path["test_clock"])
    target = call.params["frozen_time"]
    if clock["status"] != "ready":
        raise StripeProblem("The test clock is still advancing.", param="test_clock")
    if target <= clock["frozen_time"]:
        raise StripeProblem("Test clocks can only be advanced to a later time.", param="frozen_time")
    clock["status"] = "advancing"
    clock["status_details"] = {"advancing": {"target_frozen_time": target}}
    clock["_target"] = target
    sim.emit("test_helpers.test_clock.advancing", clock)
    sim.after_answer(partial(finish_advance, sim, clock))
    return clock


def finish_advance(sim: Simulator, clock: Object) -> None:
    """Run everything due on the way, in order, then be ready."""
    sim.test_clocks[clock["id"]].advance_to(clock["_target"])
    clock.update(frozen_time=clock["_target"], status="ready", status_details={})
    sim.emit("test_helpers.test_clock.ready", clock)


@route("DELETE", "/v1/test_helpers/test_clocks/{test_clock}")
def delete_clock(sim: Simulator, call: Call) -> Object:
    clock = sim.state.get(KIND, call.path["test_clock"])
    for customer in sim.state.where("customer", test_clock=clock["id"]):
        sim.tell("customer.deleted", customer)
        sim.state.remove("customer", customer["id"])
    sim.state.remove(KIND, clock["id"])
    sim.emit("test_helpers.test_clock.deleted", clock)
    return {"id": clock["id"], "object": KIND, "deleted": True}
