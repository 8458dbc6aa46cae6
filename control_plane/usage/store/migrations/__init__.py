"""Numbered statements that make the event store's tables. Written once, never changed: a change is a new number."""
