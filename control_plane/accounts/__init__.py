"""Accounts of API developers, and the tokens of those who run the API product.

Owns: account rows and their gateway version, admin API tokens and their roles.
Does not own: what an account may call (subscriptions) or with which keys (keys).
"""
