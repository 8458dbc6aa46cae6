"""Sealed usage on its way to Stripe's meters: each row of the ledger once, or known not to have gone.

Owns: rows of usage for Stripe, what they are sent as, summaries compared, Stripe's error reports.
Does not own: the ledger (usage.rollups), meters and prices at Stripe (catalog), invoices and what is added to them
(invoices).
"""
