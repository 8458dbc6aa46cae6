"""A kong-pdk style plugin for the gateway's tests: does in `access` what the request header X-Do says."""

import os

import gevent

Schema = [
    {"api_product": {"type": "string", "required": True}},
    {"prefix": {"type": "string"}},
    {"policy": {"type": "string", "default": "open", "one_of": ["open", "closed"]}},
    {"retry_seconds": {"type": "integer", "default": 3, "between": [1, 60]}},
    {"key_names": {"type": "array", "default": ["apikey"], "elements": {"type": "string", "match": "^[%w%-]+$"}}},
]
version = "1.0.0"
priority = 1240
pdk_style = "plain"


class Plugin:
    def __init__(self, config):
        self.config = config

    def access(self, kong):
        headers = kong.request.get_headers(200)
        do = headers.get("x-do", "admit")
        getattr(self, f"do_{do.replace('-', '_')}")(kong, headers)

    def do_admit(self, kong, headers):
        kong.client.authenticate(
            {"id": "7c8e3a1e-1111-4222-8333-444455556666", "username": "acme", "custom_id": "acc_42"},
            {"id": "8d9e3a1e-1111-4222-8333-444455556666", "consumer_id": "7c8e3a1e-1111-4222-8333-444455556666"},
        )
        kong.service.request.set_headers({"apikey": "redacted", "x-km-receipt": "r-1"})
        kong.response.set_headers({"x-km-receipt": "r-1", "x-ratelimit-limit": "10"})
        kong.ctx.shared.set("account", "acc_42")

    def do_refuse(self, kong, headers):
        kong.response.exit(
            401, {"code": "key_unknown"}, {"x-km-receipt": "refused-1", "Content-Type": "application/json"}
        )

    def do_raise(self, kong, headers):
        raise ValueError("on purpose")

    def do_hang(self, kong, headers):
        gevent.sleep(600)

    def do_pause(self, kong, headers):
        gevent.sleep(float(headers["x-seconds"]))
        self.do_admit(kong, headers)

    def do_die(self, kong, headers):
        os._exit(9)

    def do_misuse(self, kong, headers):
        kong.log.serialize()

    def do_show_config(self, kong, headers):
        kong.response.exit(200, {"config": self.config})

    def do_show(self, kong, headers):
        seen = {
            "headers": headers,
            "method": kong.request.get_method(),
            "path": kong.request.get_path(),
            "path_with_query": kong.request.get_path_with_query(),
            "raw_query": kong.request.get_raw_query(),
            "query": kong.request.get_query(),
            "query_arg": kong.request.get_query_arg("a"),
            "header": kong.request.get_header("X-Custom"),
            "host": kong.request.get_host(),
            "port": kong.request.get_port(),
            "scheme": kong.request.get_scheme(),
            "ip": kong.client.get_forwarded_ip(),
            "request_id": kong.nginx.get_var("kong_request_id"),
            "nginx_id": kong.nginx.get_var("request_id"),
            "body": kong.request.get_raw_body().decode(),
            "route": kong.router.get_route(),
            "service": kong.router.get_service(),
        }
        kong.response.exit(200, seen)

    def do_rewrite(self, kong, headers):
        kong.service.request.set_path("/v1/echo")
        kong.service.request.set_query({"by": "plugin"})
        kong.service.request.add_header("x-added", "two")
        kong.service.request.clear_header("x-custom")
        kong.service.request.set_raw_body("from the plugin")
        kong.service.request.set_method("POST")
