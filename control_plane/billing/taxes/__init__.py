"""Taxes by a simple rule: rates by the buyer's country or region, on top of net prices.

Owns: tax rates, which of them an account pays, what they come to.
Does not own: who the buyer is (`billing.profiles`), what is taxed (lines less discounts: `billing.invoices`).
"""
