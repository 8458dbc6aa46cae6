"""The same for `--no-lua-style`: data, and exceptions of kong-pdk's."""

import os

from kong_pdk.exception import PDKException
from kong_pdk.pdk import kong

Schema = ({"message": {"type": "string"}},)
version = "0.2.0"
priority = 5


class Plugin:
    def __init__(self, config):
        self.config = config

    def access(self, kong: kong.kong):
        try:
            host = kong.request.get_header("host")
        except PDKException as error:
            kong.log.err("no host: ", error)
            host = None
        greeting = self.config.get("message") or "hello"
        kong.response.set_header("x-greeting", f"{greeting}, {host}")
        kong.response.set_header("x-pid", str(os.getpid()))


if __name__ == "__main__":
    from kong_pdk.cli import start_dedicated_server

    start_dedicated_server("greet-python", Plugin, version, priority, Schema)
