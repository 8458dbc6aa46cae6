"""Events that applications report (CloudEvents), beside the calls that the gateway meters.

Owns: reading and judging reported events, the ids that are known already, their way into the event store.
Does not own: the route and its answers (`admin_api`), what is billed of them (rollups, meters).
"""
