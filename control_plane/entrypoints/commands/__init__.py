"""The commands of `km`, one file for each kind of thing; all but `processes` and `database` are HTTP clients."""
