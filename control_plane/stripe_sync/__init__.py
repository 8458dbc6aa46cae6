"""Everything that is said to Stripe and read from it: catalogue, customers, subscriptions, usage, invoices."""
