"""What people correct in usage: events that shall count nothing, and amounts added to or taken from an hour.

Owns: voids, amendments, and their withdrawals; each is a row that is never changed.
Does not own: what an hour comes to with them (rollups), what a customer gets back for it (billing).
"""
