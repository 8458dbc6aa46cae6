"""Goes through every phase and most of the PDK in the style of `--no-lua-style`."""

from tour import show


class Plugin:
    def __init__(self, config):
        self.config = config

    def certificate(self, kong):
        version = kong.nginx.get_tls1_version_str()
        text = f"tls {version}"
        kong.log.info(text)

    def rewrite(self, kong):
        path = kong.request.get_path()
        trusted = kong.ip.is_trusted("10.0.0.1")
        show(kong, path=path, trusted=trusted)

    def access(self, kong):
        headers = kong.request.get_headers()
        arguments = kong.request.get_query(50)
        method, error = kong.request.get_method(), None
        address = kong.client.get_forwarded_ip()
        route = kong.router.get_route()
        consumer = kong.client.get_consumer()
        body = kong.request.get_raw_body()
        nothing = kong.request.get_header("x-missing")
        show(kong, headers=headers, arguments=arguments, method=method, error=error, address=address)
        show(kong, route=route["name"], consumer=consumer["username"], body=body.decode(), nothing=nothing)
        kong.ctx.shared.set("tour", {"a": [1, 2], "b": "x"})
        shared = kong.ctx.shared.get("tour")
        kong.nginx.set_ctx("tour", "ctx")
        ctx = kong.nginx.get_ctx("tour")
        known = kong.service.set_upstream("elsewhere")
        show(kong, shared=shared, ctx=ctx, known=known)
        kong.service.set_target("example.test", 8080)
        kong.service.request.set_header("X-A", "1")
        kong.service.request.add_header("X-A", "2")
        kong.service.request.clear_header("X-B")
        kong.service.request.set_headers({"X-C": "3", "X-D": ["4", "5"]})
        kong.service.request.set_query({"q": "1"})
        kong.service.request.set_raw_body("body")
        kong.client.authenticate({"id": "c1"}, {"id": "k1"})
        kong.log("plain call")

    def response(self, kong):
        status = kong.service.response.get_status()
        headers = kong.service.response.get_headers()
        body = kong.service.response.get_raw_body()
        kong.response.set_status(status + 1)
        kong.response.set_headers({"X-Seen": headers["x-up"][0], "X-Length": str(len(body))})

    def preread(self, kong):
        address = kong.client.get_ip()
        port = kong.client.get_port()
        kong.response.exit(403, f"{address}:{port}", {"X-Gone": "yes"})

    def log(self, kong):
        record = kong.log.serialize()
        started = kong.nginx.req_start_time()
        show(kong, record=record, started=started)
