"""Disputes: cases about requests that a customer does not want to pay for.

Owns: cases, copies of the requests they are about, their trail, their decision, the file for the customer.
Does not own: taking requests out of the count (corrections), the credit that follows (billing).
"""
