"""Takes every file descriptor its worker may have, or gives them back."""

import os

Schema = []
version = "1"
priority = 1
_held = []


class Plugin:
    def __init__(self, config):
        self.config = config

    def access(self, kong):
        if kong.request.get_method() == "TAKE":
            try:
                while True:
                    _held.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                kong.log.info("none left")
        while kong.request.get_header("x-stay"):
            kong.log.debug("still here")
        while _held and kong.request.get_method() == "GIVE":
            os.close(_held.pop())
