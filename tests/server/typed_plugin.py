"""How a plugin's author uses the types: checked by mypy in test_pdk_types.py, lines marked `wrong` are to fail."""

from typing import Any

from kong_plugins.server.pdk import Headers, Kong, PdkError

pdk_style = "plain"
Schema = [{"limit": {"type": "integer"}}]
version = "1.0.0"
priority = 10


class Plugin:
    def __init__(self, config: dict[str, Any]) -> None:
        self.limit = int(config.get("limit", 10))

    def access(self, kong: Kong) -> None:
        headers: Headers = kong.request.get_headers(200)
        host: str | None = kong.request.get_header("host")
        try:
            body: bytes = kong.request.get_raw_body()
        except PdkError:
            body = b""
        if len(body) > self.limit:
            kong.response.exit(413, {"message": "too large"}, {"Retry-After": "1"})
        kong.client.authenticate({"id": "c1", "username": "ann"}, {"id": "k1", "consumer_id": "c1"})
        kong.service.request.set_headers({"x-host": host or "", "x-count": str(len(headers))})
        kong.ctx.shared.set("seen", [1, 2])
        route = kong.router.get_route()
        kong.log.info(route["name"] if route else "no route")

    def log(self, kong: Kong) -> None:
        record: str = kong.log.serialize()
        kong.log.debug(record, kong.nginx.req_start_time() + kong.response.get_status())


def mistakes(kong: Kong) -> None:
    kong.request.get_header(5)  # wrong: arg-type
    kong.request.get_headerz("host")  # wrong: attr-defined
    kong.service.set_target("host")  # wrong: call-arg
    kong.request.get_headers()["host"].lower()  # wrong: union-attr
    length: int = kong.request.get_path()  # wrong: assignment
    kong.response.exit("403", str(length))  # wrong: arg-type
