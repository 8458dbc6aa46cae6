"""A Stripe of our own for development and tests: its API, its clock, its webhooks, its faults."""
