"""API keys: issued once in readable form, remembered only as a hash.

Owns: key rows, their restrictions and their gateway version.
Does not own: the key's shape and checksum (`gateway_contract.api_keys`), its record in Redis (gateway_sync).
"""
