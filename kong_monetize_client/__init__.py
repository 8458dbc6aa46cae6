"""Reports application events to kong-monetize: typed, batching, retrying, with a buffer on disk.

Owns: the client that operators install in their applications. Does not own: what events cost, or anything of the
server; it shares no code with it.
"""
