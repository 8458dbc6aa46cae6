"""What is for sale: API products, plans, their immutable versions and prices, and plans as code.

Owns: the terms a subscription can pin, the plan file (`plans.yml`), the rules a price's params obey.
Does not own: who has subscribed (subscriptions), what usage costs (rating), Kong's configuration (gateway_sync).
"""
