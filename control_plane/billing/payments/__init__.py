"""What happens to an invoice once it is final: paid, void, uncollectible, overdue.

Owns: payments and refunds that somebody noted, the status of final invoices, subscriptions that are past due.
Does not own: taking money (a payment provider), credit notes, the lines of invoices.
"""
