"""Invoices of our own: what is due against what was billed, drafts, final invoices, closing of billing periods.

Owns: invoices and their lines, numbers without gaps, how far each subscription is billed, usage that arrives after
its period was billed.
Does not own: what a quantity costs (rating), discounts, taxes and credits (the packages beside this one), payment.
"""
