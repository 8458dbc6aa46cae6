"""What the plugins are made of.

Owns: finding the key in a request, the records read from Redis and their cache, the link to Redis, the limit
script, what holds while Redis is away, receipts, and how a decision becomes an answer.
Does not own: Kong's protocol, the records' contents, any plan or price.
"""
