"""What the gateway must know, brought to it and checked.

Owns: projection of keys and accounts into Redis, Kong configuration and the nodes it is pushed to.
Does not own: any decision about plans, keys or accounts.
"""
