"""The local gateway: stands in for Kong in development and tests, and nowhere else.

Owns: loading the same declarative configuration as Kong, proxying HTTP with streaming, running external
plugins over Kong's own wire protocol (`ProtoBuf:1`), Kong's `file-log` with the one privacy expression, and
the Admin API calls that the control plane makes.
Does not own: anything a plugin decides. What Kong can and this cannot is refused when the configuration is
loaded, by name, never ignored.

It follows Kong Gateway 3.9.3 (its source, and recordings of it). Known differences, all on purpose:

* The file-log line is written just before the last byte of the answer leaves, not after, so that killing the
  gateway cannot lose the line of a call whose answer the caller has wholly received.
* Kong repeats an event for ever while the plugin server closes the connection; here three times, then 500.
* A plugin server is restarted one second after it ended; Kong may be quicker.
* Request bodies are streamed to the upstream, where Kong reads them whole first.
* One process, one worker; plain HTTP/1.1 on loopback only.
"""
