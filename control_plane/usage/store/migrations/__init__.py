"""Numbered statements that make the event store's tables. Never changed: a change is a new number."""
