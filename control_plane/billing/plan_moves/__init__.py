"""Moving many subscriptions to a plan version: previewed, announced, done by time, reported.

Owns: moves and who is in them, what each would mean for whom, who must be told by when.
Does not own: a single change of plan (subscriptions), mails (they are sent from the notices that are kept here).
"""
