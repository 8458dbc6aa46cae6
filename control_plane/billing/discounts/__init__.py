"""Discounts: what is taken off the lines of invoices, and why.

Owns: coupons and the codes that people type, their redemption, discounts on subscriptions and what they took off
which line, founding members, referrals and their rewards.
Does not own: the lines (`billing.invoices`), taxes, the balance that rewards are paid into (`billing.balance`).
"""
