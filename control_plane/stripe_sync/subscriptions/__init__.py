"""Customers, checkouts, changes and the standing of subscriptions at Stripe."""
