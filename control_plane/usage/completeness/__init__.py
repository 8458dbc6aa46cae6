"""Completeness: was every call that the gateway admitted stored, and rolled up?

Owns: what the gateway's counters said of each hour (`usage_completeness`), the check of hours against the event
store and the rollup (`usage_hour_checks`), missing call numbers with their time and node.
Does not own: counting (gateway), settling and restoring counters (`gateway_sync`), what is billed (rollups).
"""
