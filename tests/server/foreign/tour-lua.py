"""Goes through every phase and most of the PDK in kong-pdk's default style. Has neither Schema nor version."""

from tour import show


class Plugin:
    def __init__(self, config):
        self.config = config

    def certificate(self, kong):
        version, _ = kong.nginx.get_tls1_version_str()
        text = f"tls {version}"
        kong.log.info(text)

    def rewrite(self, kong):
        path, _ = kong.request.get_path()
        trusted, _ = kong.ip.is_trusted("10.0.0.1")
        show(kong, path=path, trusted=trusted)

    def access(self, kong):
        headers, _ = kong.request.get_headers()
        arguments, _ = kong.request.get_query(50)
        method, error = kong.request.get_method()
        address, _ = kong.client.get_forwarded_ip()
        route, _ = kong.router.get_route()
        consumer, _ = kong.client.get_consumer()
        body, _ = kong.request.get_raw_body()
        nothing, _ = kong.request.get_header("x-missing")
        show(kong, headers=headers, arguments=arguments, method=method, error=error, address=address)
        show(kong, route=route["name"], consumer=consumer["username"], body=body.decode(), nothing=nothing)
        kong.ctx.shared.set("tour", {"a": [1, 2], "b": "x"})
        shared, _ = kong.ctx.shared.get("tour")
        kong.nginx.set_ctx("tour", "ctx")
        ctx, _ = kong.nginx.get_ctx("tour")
        known, _ = kong.service.set_upstream("elsewhere")
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
        status, _ = kong.service.response.get_status()
        headers, _ = kong.service.response.get_headers()
        body, _ = kong.service.response.get_raw_body()
        kong.response.set_status(status + 1)
        kong.response.set_headers({"X-Seen": headers["x-up"][0], "X-Length": str(len(body))})

    def preread(self, kong):
        address, _ = kong.client.get_ip()
        port, _ = kong.client.get_port()
        kong.response.exit(403, f"{address}:{port}", {"X-Gone": "yes"})

    def log(self, kong):
        record, _ = kong.log.serialize()
        started, _ = kong.nginx.req_start_time()
        show(kong, record=record, started=started)
