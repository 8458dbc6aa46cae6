"""Values of declared meters.

*Owns* the value of each meter by hour and phase, unique values by billing period, and the counting of stored
events for new meters (backfills).
*Does not own* what a meter is (`catalog`), hours and their seals (`rollups`), or what a meter costs (`rating`).
"""
