"""The `kong` object a plugin's phase is given: Kong's PDK, with its names and its order of arguments.

A plugin's author has types with `from kong_plugins.server.pdk import Kong` and `def access(self, kong: Kong)`.
Where a plugin expects kong-pdk's own server, `foreign` gives it what that one does.

A method returns plain data and raises `PdkError` where Kong cannot be asked (kong-pdk's `--no-lua-style`).
What Kong says with Lua's nil is None. A header value of any bytes is a str with surrogate escapes.
`kong.response.exit` does not return. Kong decides which method is allowed in which phase.
"""

from kong_plugins.server.errors import ConnectionLostError, PdkError, ResponseSent
from kong_plugins.server.pdk.channel import Arguments, Channel, Headers
from kong_plugins.server.pdk.kong import Kong

__all__ = ["Arguments", "Channel", "ConnectionLostError", "Headers", "Kong", "PdkError", "ResponseSent"]
