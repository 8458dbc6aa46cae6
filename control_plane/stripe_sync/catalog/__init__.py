"""Plans as products, prices and meters at Stripe."""
