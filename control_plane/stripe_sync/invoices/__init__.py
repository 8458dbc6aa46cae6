"""Invoices of what Stripe bills: what Stripe will charge, its invoices as last read, and what we add to them.

Owns: the expected invoice (the preview of a Stripe-billed subscription), the mirror of Stripe's invoices,
payments, credit notes and disputes, items that we put on Stripe's drafts, credit notes that we make there, and the
comparison of each final invoice with what was expected.
Does not own: usage on its way to Stripe, plan changes, what an unpaid invoice means for access.
"""
