"""The demo: real HTTP traffic through the gateway, and every figure compared with the client's own count.

Owns: the scenario, the client's ledger, the comparison, the report (terminal and page).
Does not own: the stack it runs on (`devstack.supervisor`), any figure of the product.
"""
