"""Headers and bodies of answers: what the gateway adds, what it says itself."""

from devstack.gateway.exchange import Exchange, Exit
from devstack.gateway.headers import HOP_BY_HOP, Headers
from devstack.gateway.uris import readable

SERVER_NAME = "kong/3.9.3"
MESSAGES = {
    404: "no Route matched with those values",
    426: "Please use HTTPS protocol",
    500: "An unexpected error occurred",
    501: "Not implemented",
    502: "An invalid response was received from the upstream server",
    503: "The upstream server is currently unavailable",
    504: "The upstream server is timing out",
}
# of these an answer has one, so the upstream's replaces what a plugin set before
_SINGLE = frozenset(
    {
        "content-type",
        "content-encoding",
        "content-location",
        "date",
        "etag",
        "last-modified",
        "location",
        "server",
    }
)
_MADE_HERE = HOP_BY_HOP | {"content-length"}


def error_exit(exchange: Exchange, status: int, message: str | None = None) -> Exit:
    """An error in Kong's words: `{"message", "request_id"}`."""
    body = f'{{\n  "message":"{message or MESSAGES[status]}",\n  "request_id":"{exchange.id}"\n}}'
    return Exit(status, body.encode(), {"Content-Type": "application/json; charset=utf-8"})


def exit_headers(exchange: Exchange, answer: Exit) -> Headers:
    """Headers of an answer that did not come from the upstream."""
    headers = exchange.early_headers.copy()
    for name, value in answer.headers.items():
        if name.lower() != "content-length":
            headers.put(name, value)
    if exchange.proxied:
        _add_proxy_headers(exchange, headers, via=None)
    else:
        headers.put("X-Kong-Response-Latency", str(exchange.kong_latency_ms or 0))
    headers.put("Server", SERVER_NAME)
    headers.put("X-Kong-Request-Id", exchange.id)
    return headers


def proxied_headers(exchange: Exchange, upstream: Headers) -> Headers:
    """Headers of the upstream's answer: a plugin's first, then the upstream's own, then the gateway's."""
    dropped = _MADE_HERE | upstream.listed("connection")
    present = {name for name, _, _ in upstream}
    headers = Headers()
    for name, written, value in exchange.early_headers:
        if not (name in _SINGLE and name in present):
            headers.append(written, value)
    for name, written, value in upstream:
        if name not in dropped:
            headers.append(written, value)
    if "server" not in present:
        headers.put("Server", SERVER_NAME)
    _add_proxy_headers(exchange, headers, via=upstream.get("via"))
    headers.put("X-Kong-Request-Id", exchange.id)
    return headers


def upstream_request_headers(exchange: Exchange, *, host: str, prefix: str | None) -> Headers:
    """What the upstream gets: the caller's headers as plugins left them, and who sent the request on."""
    caller = exchange.headers
    made_here = {"host", "content-length", "expect", "proxy", "via", "x-real-ip", "x-kong-request-id"}
    dropped = HOP_BY_HOP | made_here | caller.listed("connection")
    headers = Headers([(b"Host", host.encode()), (b"Connection", b"keep-alive")])
    for name, written, value in caller:
        if name not in dropped and not name.startswith("x-forwarded-"):
            headers.append(written, value)
    client_ip = exchange.request.client_ip
    forwarded_for = ", ".join([*caller.get_all("x-forwarded-for"), client_ip])
    via = f"{exchange.request.http_version} {SERVER_NAME}"
    headers.put("X-Forwarded-For", forwarded_for)
    headers.put("X-Forwarded-Proto", "http")
    headers.put("X-Forwarded-Host", exchange.host)
    headers.put("X-Forwarded-Port", str(exchange.request.server_port))
    headers.put("X-Forwarded-Path", readable(exchange.raw_path))
    if prefix is not None and prefix != "/":
        headers.put("X-Forwarded-Prefix", readable(prefix))
    headers.put("X-Real-IP", client_ip)
    headers.put("Via", ", ".join([*caller.get_all("via"), via]))
    headers.put("X-Kong-Request-Id", exchange.id)
    if "trailers" in caller.listed("te"):
        headers.put("TE", "trailers")
    return headers


def raw(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name, value) for _, name, value in headers]


def _add_proxy_headers(exchange: Exchange, headers: Headers, *, via: str | None) -> None:
    headers.put("X-Kong-Upstream-Latency", str(exchange.waiting_ms or 0))
    headers.put("X-Kong-Proxy-Latency", str(exchange.kong_latency_ms or 0))
    headers.put("Via", f"{via}, 1.1 {SERVER_NAME}" if via else f"1.1 {SERVER_NAME}")
