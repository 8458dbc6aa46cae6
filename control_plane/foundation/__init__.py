"""What every feature stands on.

Owns: clock, money, billing periods, ids, errors, the database's base and session, outbox, audit log, logging,
pagination.
Does not own: any billing rule, any HTTP status.
"""
