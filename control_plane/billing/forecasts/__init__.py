"""What the running billing period will have cost at its end, with a range.

Owns: expected usage of the days that are left, and what it comes to with what was used so far.
Does not own: how usage is rated (rating) and what is due for a period (invoices), which forecasts go through.
"""
