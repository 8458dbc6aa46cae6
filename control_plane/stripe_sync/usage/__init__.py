"""Sealed usage on its way to Stripe, and what Stripe says of it."""
