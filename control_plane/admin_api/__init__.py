"""The admin REST API under /admin/v1: what operators, finance and support do, and what `km` speaks to.

Owns: HTTP forms (bodies, answers, problem+json), who may call what, one transaction per request, health, metrics.
Does not own: any rule of the business (the features' operations), how the process runs (entrypoints).
`resources` has one file per kind of thing; errors become answers in `problems` and nowhere else.
"""
