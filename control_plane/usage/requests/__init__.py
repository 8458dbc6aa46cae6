"""Requests one by one: what support looks up, what is exported, what a dispute is about.

Owns: searching the stored events, what is known of one request, export jobs and their files, dispute cases.
Does not own: the events (store), what an hour counts (rollups), taking an event out of the count (corrections).
"""
