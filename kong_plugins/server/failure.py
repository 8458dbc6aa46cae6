"""What the caller gets where a plugin did not decide, and what that is counted as."""

import json
from collections.abc import Mapping
from typing import Final

from kong_plugins.server import wire
from kong_plugins.server.errors import EventTimeout
from kong_plugins.server.methods import EXIT
from kong_plugins.server.pdk.response import encode_exit

_STATUS: Final = 503
_BODY: Final = json.dumps(
    {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": _STATUS,
        "code": "gateway_plugin_failed",
        "detail": "The gateway could not decide on this request. Try again shortly.",
    }
).encode()
_HEADERS: Final[Mapping[str, object]] = {
    "Content-Type": "application/problem+json",
    "Cache-Control": "no-store",
    "Retry-After": "1",
}
# the call of `kong.response.exit`, made once
FAILURE: Final = EXIT.frame + wire.frame(encode_exit(_STATUS, _BODY, _HEADERS))


def result_of(error: BaseException) -> str:
    return "timeout" if isinstance(error, EventTimeout) else "failed"
