"""`python -m devstack.soak`: traffic with random faults, and a ledger that must agree with what was stored.

Owns: the callers, the faults, the ledger of what callers saw, the checks and their report.
Does not own: the stack it runs on (`devstack.stack`), nor any rule of the product. It sees the product as an
operator does: through the gateway, the REST API, Redis' counters and the files on disk.
"""
