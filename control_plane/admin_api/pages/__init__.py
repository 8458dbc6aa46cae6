"""Pages for operators: server-rendered HTML, read-only, without scripts.

Owns: who may open a page, what a browser may load with it, the pages' templates.
Does not own: what is shown (the features' queries), changes (the REST API).
"""
