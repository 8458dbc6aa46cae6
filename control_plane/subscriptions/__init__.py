"""Who is on which plan, from when to when.

Owns: the subscription's status machine, its phases (one plan version each, half-open, without gaps), overrides,
the billing periods that follow from its anchor.
Does not own: the terms themselves (catalog), money (rating, billing).
"""
