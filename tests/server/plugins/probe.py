"""A kong-pdk style plugin that does what its configuration says."""

import contextlib
import logging
import os
import time
from pathlib import Path

import gevent

Schema = [{"do": {"type": "string"}}, {"secret": {"type": "string", "encrypted": True}}]
version = "1.2.3"
priority = 77

_original_sleep = None
started = []


def start_worker():
    started.append(os.getpid())


def stop_worker():
    path = os.environ.get("PROBE_STOP_FILE")
    if path:
        with Path(path).open("a") as file:
            file.write(f"{os.getpid()}\n")


class Plugin:
    def __init__(self, config):
        if config.get("do") == "refuse":
            raise ValueError(f"bad secret {config['secret']} in do")
        self.config = config

    def access(self, kong):
        getattr(self, "do_" + self.config.get("do", "headers"))(kong)

    def log(self, kong):
        getattr(self, "do_" + self.config.get("do", "headers"))(kong)

    def do_headers(self, kong):
        headers = kong.request.get_headers()
        kong.service.request.set_headers({"X-Seen": str(len(headers)), "X-Worker": str(os.getpid())})

    def do_worker(self, kong):
        kong.response.set_headers({"pid": str(os.getpid()), "object": str(id(self)), "starts": str(len(started))})

    def do_exit(self, kong):
        kong.response.exit(429, {"code": "slow_down"}, {"Retry-After": "7"})
        raise AssertionError("exit must not return")

    def do_swallow(self, kong):
        with contextlib.suppress(BaseException):
            kong.response.exit(403, b"no")

    def do_raise(self, kong):
        raise ValueError(kong.request.get_header("apikey") or "no key")

    def do_log_often(self, kong):
        for number in range(100):
            logging.getLogger("probe").warning("again and again: %d", number)

    def do_raise_first(self, kong):
        raise RuntimeError("at once")

    def do_leave(self, kong):
        raise SystemExit(3)

    def do_sleep(self, kong):
        kong.log.debug("sleeping")
        gevent.sleep(float(self.config.get("seconds", 60)))
        kong.log.debug("awake")

    def do_ask(self, kong):
        kong.request.get_path()
        kong.log.debug("asked")

    def do_block(self, kong):
        gevent.monkey.get_original("time", "sleep")(120)

    def do_spin(self, kong):
        end = time.monotonic() + 120
        while time.monotonic() < end:
            pass

    def do_bad_value(self, kong):
        kong.response.set_header("X", object())

    def do_spawn(self, kong):
        def fail(text):
            raise ValueError(text)

        gevent.spawn(fail, kong.request.get_header("apikey")).join()

    def do_kong_log(self, kong):
        kong.log.err("saw ", kong.request.get_header("apikey"), 5)

    def do_log_key(self, kong):
        import logging

        logging.getLogger("probe").warning("saw %s", kong.request.get_header("apikey"))
