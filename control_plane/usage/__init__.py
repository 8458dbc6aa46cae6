"""Usage: from shipped lines to sealed hours.

Owns: usage events, positions of shippers, touched hours, hourly rollups and their seals.
Does not own: what usage costs (rating), the request path (`kong_plugins`).
"""
