"""Billing profiles: whom an invoice is addressed to, and who it is from.

Owns: an account's legal name, address and tax facts; what invoices write down of buyer and seller.
Does not own: tax rates (taxes), the account itself (accounts).
"""
