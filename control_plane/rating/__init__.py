"""Rating: what a billing period costs, and why, in words an API developer can check by hand.

Owns: the price models (one file each), what a change of plan, add-ons and a quota of one's own make of them
(`runs`, `charging`), all prices of a billing period (`period.rate_period`), rounding (`rate`), spend caps as the
gateway checks them, the wording of amounts, quantities and whole lines (`words`, `explain`).
Does not own: where quantities come from (usage), which prices apply (catalog, subscriptions), invoices (billing).
Pure: no I/O, no clock. A new price model is one file with a class like `per_unit.PerUnit`, and one line in
`models.MODELS`.
"""
