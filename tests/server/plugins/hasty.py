"""A plugin that does not wait for Kong where Kong has nothing to say."""

import time

Schema = [{"do": {"type": "string"}}]
version = "1"
priority = 1
waits_for_kong = False


class Plugin:
    def __init__(self, config):
        self.config = config

    def access(self, kong):
        kong.request.get_headers()
        kong.service.request.set_headers({"a": "1"})
        kong.ctx.shared.set("b", "2")
        getattr(self, "do_" + self.config["do"])(kong)

    log = access

    def do_nothing(self, kong):
        """Ends with calls that were not sent yet."""

    def do_ask(self, kong):
        kong.response.set_headers({"method": kong.request.get_method()})

    def do_exit(self, kong):
        kong.response.exit(403, b"no")

    def do_raise(self, kong):
        raise ValueError

    def do_stall(self, kong):
        kong.request.get_method()
        time.sleep(60)
