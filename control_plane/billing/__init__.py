"""Billing: what an account owes for a billing period, line by line.

Owns: invoice previews (later: drafts, invoices, credits, statements), the choice of prices and quantities for a
period.
Does not own: how a price turns a quantity into an amount (rating), how quantities come about (usage).
"""
