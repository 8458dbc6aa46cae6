"""A year of the whole control plane in minutes: customers whose bills were reckoned by hand.

Owns: the customers and what happens to them, the bills that they should get, a clock that jumps from one due
moment to the next, a plain count of calls, and the comparison of all of it with what the product holds.
Does not own: any rule of billing. People's steps go through the REST API, usage through the stream.
"""
