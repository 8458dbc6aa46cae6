"""km-pluginserver: serves Kong plugins written in Python over Kong's `ProtoBuf:1` protocol.

Owns: the wire format, the `kong` object plugins are given, worker processes, plugin instances, what Kong is
answered when a plugin fails, health and metrics of the server.
Does not own: what any plugin decides; Redis.
Importing this package, `pdk`, `metrics` or `registry` must stay cheap: `--dump` and plugins under kong-pdk's
own server do it, without gevent.
"""
