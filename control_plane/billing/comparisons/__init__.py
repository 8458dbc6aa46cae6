"""What the same usage would cost on other plans: for one customer, for given units.

Owns: what was asked for in the last 30 days, what each plan on sale would charge for it and refuse of it.
Does not own: how usage is rated (rating), what callers are told when they are refused (gateway_sync).
"""
