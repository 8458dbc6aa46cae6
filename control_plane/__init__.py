"""The control plane: accounts, plans, keys, subscriptions, usage figures and invoices behind a Kong gateway.

Owns: everything that is decided or remembered outside the request path, in PostgreSQL and ClickHouse.
Does not own: the decision about a call (`kong_plugins`), the byte forms both sides read (`gateway_contract`).
"""
