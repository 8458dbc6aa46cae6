"""The doors through which Stripe tells us of events."""
