"""From the usage stream to stored events.

Owns: reading, claiming and acknowledging entries, whose a call was (attribution), dead letters, shipper positions.
Does not own: figures (rollups), the event store's statements (store).
"""
