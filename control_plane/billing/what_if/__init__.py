"""What other terms of a plan would have cost its customers in the last months.

Owns: jobs that replay the months, and what they found for each subscription.
Does not own: what is due for a period (invoices), by which both sides are worked out.
"""
