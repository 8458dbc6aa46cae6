"""Lines that could not become events of anybody, and what people do about them.

Owns: listing and showing dead letters, putting them through the collector's path again, dismissing them.
Does not own: which lines are set aside and why (collect), where they are kept (store).
"""
