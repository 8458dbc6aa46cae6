"""Invoices that somebody makes by hand: a draft, its lines, and when it becomes final.

Owns: drafts with the reason `manual` and their lines.
Does not own: making an invoice final, and what subscriptions are billed (invoices).
"""
