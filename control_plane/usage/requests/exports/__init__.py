"""Exports: events or hourly rollups as files, written in the background.

Owns: export jobs, the worker that does them, the files and their end.
Does not own: what an event or a rollup row is, sending usage to other systems.
"""
