"""Sinks: usage for other systems, sent as CloudEvents over HTTP or written as a file a day.

Owns: sinks, how far each one is, sending with retries, the files of days.
Does not own: exports that people ask for (requests.exports), what an event or a rollup row is.
"""
