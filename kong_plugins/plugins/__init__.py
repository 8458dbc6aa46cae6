"""The four plugins that Kong attaches to routes.

Owns: each plugin's configuration schema and what it asks of Kong in a phase.
Does not own: how a call is decided, told or recorded; see `kong_plugins.parts`.
"""
