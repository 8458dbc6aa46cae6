"""Where processes start: commands, settings, migrations.

Owns: reading the environment, wiring components together.
Does not own: any rule.
"""
