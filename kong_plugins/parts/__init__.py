"""What the plugins and the shipper are made of.

Owns: identity, limits and receipts of a call; usage lines and the file they are appended to.
Does not own: Kong's plugin protocol (`kong_plugins.server`), and the way of lines from the spool directory to
Redis (`kong_plugins.shipper`).
"""
