"""Rating: what a quantity costs under a price, and why, in words an API developer can check by hand.

Owns: the price models (one file each), the proration of a price that ran for part of a billing period,
rated lines with their formula, the wording of amounts and quantities.
Does not own: where quantities come from (usage), which prices apply (catalog, subscriptions), invoices (billing).
Pure: no I/O, no clock. A new price model is one file with a class like `per_unit.PerUnit`, and one line in
`models.MODELS`.
"""
