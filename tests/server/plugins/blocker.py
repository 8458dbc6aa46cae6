"""Stops a whole worker: real, unpatched waiting, or an endless loop."""

from gevent import monkey

Schema = []
version = "1"
priority = 1


class Plugin:
    def __init__(self, config):
        self.config = config

    def access(self, kong):
        kong.request.get_path()
        if self.config.get("how") == "spin":
            while True:
                pass
        monkey.get_original("time", "sleep")(120)
