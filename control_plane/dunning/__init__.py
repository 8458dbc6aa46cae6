"""What happens when a bill is not paid.

Owns: cases of unpaid subscriptions, their grace, what holds after it, what customers are told of it.
Does not own: the status `past_due` (billing.payments and stripe_sync set it), holding calls back
(subscriptions.holds, gateway_sync), sending mail (notifications), collecting money (Stripe, or people).
"""
