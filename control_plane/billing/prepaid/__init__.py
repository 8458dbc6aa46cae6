"""Prepaid plans: usage is paid from credits as it is sealed, and credits are bought by invoice.

Owns: what usage of a prepaid subscription comes to so far, drawing that from credits, reserving beside it, buying
credits.
Does not own: grants and their ledger, limits (`billing.credits`), what is due (`billing.invoices`), refusing calls
(the gateway).
"""
