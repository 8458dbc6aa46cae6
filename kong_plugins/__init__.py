"""Everything that runs beside a Kong gateway.

Owns: the plugin server Kong starts, the plugins it serves, the parts the plugins are made of, and the shipper
of usage lines.
Does not own: plans, keys, invoices or any database; what it knows of them it reads from Redis in the forms of
`gateway_contract`.
"""
