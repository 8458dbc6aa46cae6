"""Mail to customers.

Owns: the queue of mails, their words and looks, handing them to an SMTP server.
Does not own: when there is something to tell (dunning and others queue mails in their own transactions); whom an
account's bills go to (billing.profiles, accounts).
"""
