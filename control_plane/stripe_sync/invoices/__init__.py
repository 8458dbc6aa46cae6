"""Stripe's invoices: what we expect of them, what they say, what we add to their drafts."""
