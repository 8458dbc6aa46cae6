"""Requests to addresses that people type in: they must not lead into our own network."""

import asyncio
import socket

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from control_plane.foundation.errors import ValidationFailedError
from control_plane.foundation.outgoing import (
    MAX_ANSWER_BYTES,
    ForbiddenAddressError,
    OutgoingClient,
    OutgoingError,
    check_url,
    is_public,
)


class TestCheckUrl:
    @pytest.mark.parametrize(
        "url", ["https://billing.example.com/usage?tenant=1", "http://[2606:4700::1111]:8443/", "http://10.0.0.1"]
    )
    def test_takes_http_and_https(self, url):
        assert check_url(url) == url

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "billing.example.com",
            "ftp://example.com",
            "file:///etc/passwd",
            "https://",
            "https://user@example.com",
            "https://user:secret@example.com",
            "https://example.com/#part",
            "https://example.com/a b",
            "https://exämple.com",
            "https://example.com:0/",
            "https://example.com:99999/",
            "https://example.com/\r\nHost: other",
            "https://[::1",
            f"https://example.com/{'x' * 2_000}",
            f"https://{'x' * 64}.example.com/",
            "https://billing..example.com/",
            "https://.../",
        ],
    )
    def test_refuses_everything_else(self, url):
        with pytest.raises(ValidationFailedError):
            check_url(url)


class TestIsPublic:
    @pytest.mark.parametrize("address", ["93.184.215.14", "2606:4700::1111", "::ffff:93.184.215.14"])
    def test_the_internet_is(self, address):
        assert is_public(address)

    @pytest.mark.parametrize(
        "address",
        [
            "127.0.0.1",
            "127.8.8.8",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",  # where clouds answer with credentials
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1%eth0",
            "fd00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "2002:7f00:1::",  # 6to4 of 127.0.0.1
            "64:ff9b::a9fe:a9fe",  # NAT64 of 169.254.169.254
            "64:ff9b:1::7f00:1",  # a network's own NAT64
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
            "fec0::1",
        ],
    )
    def test_networks_of_ours_are_not(self, address):
        assert not is_public(address)


@pytest.fixture
async def server():
    """Answers with what it was asked, as far as a test looks at it."""
    asked: list[web.Request] = []
    peers: list[tuple] = []

    async def answer(request: web.Request) -> web.Response:
        peers.append(request.transport.get_extra_info("peername"))
        asked.append(request)
        await request.read()
        if request.path == "/redirect":
            return web.Response(status=302, headers={"Location": "http://169.254.169.254/"})
        if request.path == "/long":
            return web.Response(body=b"x" * (MAX_ANSWER_BYTES * 3))
        if request.path == "/slow":
            await asyncio.sleep(30)
        return web.Response(status=429, headers={"Retry-After": "7"}, text="later")

    app = web.Application()
    app.router.add_post("/{anything:.*}", answer)
    async with TestServer(app) as found:
        found.asked, found.peers = asked, peers
        yield found


class TestPost:
    async def test_says_what_the_other_side_said(self, server):
        async with OutgoingClient(allow_private=True) as client:
            answer = await client.post(str(server.make_url("/usage")), content=b"[]", headers={"X-A": "1"})
        assert (answer.status, answer.retry_after_seconds, answer.text) == (429, 7.0, "later")
        assert server.asked[0].headers["X-A"] == "1"
        assert server.asked[0].headers["Host"] == f"127.0.0.1:{server.port}"

    async def test_goes_into_no_private_network(self, server):
        async with OutgoingClient() as client:
            for host in ("127.0.0.1", "localhost", "[::1]"):
                with pytest.raises(ForbiddenAddressError):
                    await client.post(f"http://{host}:{server.port}/", content=b"", headers={})
        assert server.asked == []

    async def test_goes_to_the_address_that_was_judged(self, server, monkeypatch):
        """The name is looked up once: a second answer, which leads elsewhere, is never asked for."""
        looked_up = []

        async def resolve(_self, host, port, **_more):
            looked_up.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        monkeypatch.setattr(asyncio.get_running_loop().__class__, "getaddrinfo", resolve)
        async with OutgoingClient(allow_private=True) as client:
            await client.post(f"http://billing.example.com:{server.port}/usage", content=b"", headers={})
        assert looked_up == ["billing.example.com"]
        assert server.asked[0].headers["Host"] == f"billing.example.com:{server.port}"

    async def test_refuses_a_name_with_one_private_address_among_public_ones(self, monkeypatch):
        async def resolve(_self, _host, port, **_more):
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
                for address in ("93.184.215.14", "10.0.0.1")
            ]

        monkeypatch.setattr(asyncio.get_running_loop().__class__, "getaddrinfo", resolve)
        async with OutgoingClient() as client:
            with pytest.raises(ForbiddenAddressError):
                await client.post("http://billing.example.com/usage", content=b"", headers={})

    async def test_keeps_names_at_one_address_on_connections_of_their_own(self, server, monkeypatch):
        """A certificate is judged once, when the connection is made, and by the name it was made for."""

        async def resolve(_self, _host, port, **_more):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        monkeypatch.setattr(asyncio.get_running_loop().__class__, "getaddrinfo", resolve)
        async with OutgoingClient(allow_private=True) as client:
            for name in ("one", "other", "one"):
                await client.post(f"http://{name}.example.com:{server.port}/usage", content=b"", headers={})
        one, other, again = server.peers
        assert one == again != other

    @pytest.mark.parametrize("host", ["a" * 64 + ".example.com", "billing..example.com"])
    async def test_says_that_there_is_no_such_name(self, host):
        """Also of one that no name server can be asked for."""
        async with OutgoingClient() as client:
            with pytest.raises(OutgoingError, match="cannot be resolved"):
                await client.post(f"https://{host}/usage", content=b"", headers={})

    async def test_says_that_a_header_cannot_be_sent(self, server):
        async with OutgoingClient(allow_private=True) as client:
            with pytest.raises(OutgoingError):
                await client.post(str(server.make_url("/")), content=b"", headers={"Authorization": "Bearer ä"})

    async def test_follows_no_redirect(self, server):
        async with OutgoingClient(allow_private=True) as client:
            assert (await client.post(str(server.make_url("/redirect")), content=b"", headers={})).status == 302

    async def test_reads_no_endless_answer(self, server):
        async with OutgoingClient(allow_private=True) as client:
            answer = await client.post(str(server.make_url("/long")), content=b"", headers={})
        assert len(answer.text) == MAX_ANSWER_BYTES

    async def test_waits_no_longer_than_it_may(self, server):
        async with OutgoingClient(allow_private=True, timeout_seconds=0.2) as client:
            with pytest.raises(OutgoingError, match=r"no answer within 0\.2 seconds"):
                await client.post(str(server.make_url("/slow")), content=b"", headers={})

    async def test_says_that_nobody_answers(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            async with OutgoingClient(allow_private=True) as client:
                with pytest.raises(OutgoingError):
                    await client.post(f"http://127.0.0.1:{unused.getsockname()[1]}/", content=b"", headers={})
