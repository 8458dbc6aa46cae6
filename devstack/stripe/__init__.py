"""A Stripe of our own for development and tests: its API, its clock, its webhooks, its faults.

It runs as one process on 127.0.0.1 (`python -m devstack.stripe --port P`), keeps everything in memory and does all
work on one thread: a handler is never interrupted. Nothing here imports `stripe`: what requests and answers may
hold is read from the installed SDK's source (`contract`), so a new SDK is a new contract.

How to add an operation
-----------------------
Write a function in a module of `objects` or `billing` (all are imported) and register it under the path as the SDK
spells it (`{name}` for every id in it)::

    @route("POST", "/v1/widgets/{widget}/turn")
    def turn_widget(sim: Simulator, call: Call) -> Object:
        widget = sim.state.get("widget", call.path["widget"])       # 404 of Stripe's if there is none
        with sim.changing(widget, "widget.updated"):                # emits if the block changed something
            set_given(widget, call.params, ("name", "turned"))
            merge_metadata(widget, call.params)
        return widget

- `call.params` were parsed, checked against the contract and coerced: ints, bools, `Decimal`, lists, dicts; `""`
  is left where the contract allows to clear a field. What is not in the contract never reaches the handler.
- An object is a plain dict in Stripe's own form with ids where Stripe has expandable fields. `sim.state.add(one)`
  keeps it under its `object` name; `sim.state.new_id("sub")` makes an id. Keys that begin with `_` are private:
  they are kept and never shown.
- The dict that is returned is copied, expanded as asked, checked against the SDK's resource class and sent. One
  that does not fit is answered 500 and kept in `sim.violations`, and the tests' fixture fails on it.
- A field that Stripe shows only when expanded (`tiers` of a price) is named with `shown_when_expanded`.
- Refusals: `raise StripeProblem("sentence", code=..., param=...)`; `no_such("price", id, param="price")`. Refuse
  before you change anything: nothing is rolled back.
- Lists: `return page(call, sim.state.all("widget"))` (newest first; filters but `created` are the handler's work).
- Time: `sim.now(customer_id)` is the customer's test clock, or the simulator's; whole seconds. Things that happen
  later: `sim.at(when, action, customer=...)`; when they run, `sim.now(...)` is exactly `when`.
- News: `sim.emit("widget.turned", widget)` writes the event and delivers it to every webhook that asked for it;
  `sim.emit_thin(...)` for events that exist only in the thin form.
- Features tell each other what happened inside the simulator by `listen("customer.deleted", function)`; the
  listener gets `(sim, object)` at once, in the same request, when `sim.tell(topic, object)` is said.
- Orders of a feature's own for tests: `@order("name")`; `sim.control.order("name", ...)` calls it. Pages for
  people: `@pages` on a function that makes a FastAPI router of a simulator; its functions must be `async def`, or
  FastAPI runs them on another thread.
"""
