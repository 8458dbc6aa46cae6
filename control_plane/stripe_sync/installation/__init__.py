"""What an installation as a whole needs at Stripe: webhooks, the customers' portal; and whether all is well.

Owns the webhook endpoint, the destination of thin events and the portal's configuration that `km stripe setup`
makes, and what `km stripe doctor` looks at. Does not own plans (`catalog`) nor what webhooks bring (`events`).
"""
