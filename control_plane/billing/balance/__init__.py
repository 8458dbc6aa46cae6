"""What an account has to its credit, in a currency: entries that are only ever added, and their sum.

Owns: the entries and the sum, what invoices draw from it and give to it, adjustments by finance.
Does not own: prepaid credits, which expire and are drawn before (credits), payments (payments).
"""
