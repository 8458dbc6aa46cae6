"""Prepaid credits: what an account has paid ahead, or was given, and what it was used for.

Owns: grants and their ledger, the order in which they are used, reservations, what invoices draw, what is left for
prepaid subscriptions.
Does not own: invoices (`billing.invoices`), what usage costs (rating), what the gateway makes of a limit.
"""
