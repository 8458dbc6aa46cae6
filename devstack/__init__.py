"""Everything the product needs on one machine without root, Docker or a network.

Owns: the embedded stores as child processes, the sample upstream API, the local gateway that
stands in for Kong in development and tests, and the supervisor that runs them together.
Does not own: any rule of the product. Nothing here is imported by the gateway side or the
control plane, and nothing here belongs in production.
"""
