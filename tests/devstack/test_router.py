"""Which route takes a request, and what path the upstream sees."""

import pytest
import yaml

from devstack.gateway.declarative import load_configuration
from devstack.gateway.plugin_catalog import PluginCatalog
from devstack.gateway.router import Router
from devstack.gateway.uris import escape, normalize


def router(*routes: dict, **service: object) -> Router:
    entity = {"name": "up", "host": "127.0.0.1", **service, "routes": list(routes)}
    text = yaml.safe_dump({"_format_version": "3.0", "services": [entity]})
    catalog = PluginCatalog([], enabled=["bundled"])
    return Router(load_configuration(text, catalog=catalog, first_sequence=1).routes)


def route(name: str, **fields: object) -> dict:
    return {"name": name, **fields}


def taken(found: Router, path: str, *, method: str = "GET", host: str = "example.com") -> str | None:
    match = found.match(method=method, raw_path=path, host=host)
    return match and match.route.name


class TestChoice:
    def test_the_longest_prefix_wins_whatever_the_order(self):
        routes = [route("short", paths=["/a"]), route("long", paths=["/a/b"]), route("root", paths=["/"])]
        for order in (routes, routes[::-1]):
            found = router(*order)
            assert taken(found, "/a/b/c") == "long"
            assert taken(found, "/a/x") == "short"
            assert taken(found, "/elsewhere") == "root"

    def test_a_prefix_need_not_end_at_a_slash(self):
        assert taken(router(route("r", paths=["/wea"])), "/weather") == "r"

    def test_a_regex_is_tried_before_prefixes_and_by_priority(self):
        found = router(
            route("prefix", paths=["/v1/users/"]),
            route("low", paths=[r"~/v1/users/\d+$"], regex_priority=1),
            route("high", paths=[r"~/v1/users/7$"], regex_priority=2),
        )
        assert taken(found, "/v1/users/12") == "low"
        assert taken(found, "/v1/users/7") == "high"
        assert taken(found, "/v1/users/x") == "prefix"

    def test_a_regex_must_match_from_the_start(self):
        assert taken(router(route("r", paths=["~/b"])), "/a/b") is None

    def test_more_conditions_win_over_a_longer_path(self):
        found = router(
            route("path", paths=["/a/b/c"]),
            route("path-and-method", paths=["/a"], methods=["GET"]),
            route("all-three", paths=["/a"], methods=["GET"], hosts=["example.com"]),
        )
        assert taken(found, "/a/b/c") == "all-three"
        assert taken(found, "/a/b/c", host="other.org") == "path-and-method"
        assert taken(found, "/a/b/c", host="other.org", method="POST") == "path"

    @pytest.mark.parametrize(
        ("pattern", "host", "matches"),
        [
            ("example.com", "example.com", True),
            ("example.com", "EXAMPLE.com:8000", True),
            ("example.com", "a.example.com", False),
            ("*.example.com", "a.example.com", True),
            ("*.example.com", "a.b.example.com:8000", True),
            ("*.example.com", "example.com", False),
            ("example.*", "example.org", True),
            ("*.example.com:9000", "a.example.com:9000", True),
            ("*.example.com:9000", "a.example.com:9001", False),
        ],
    )
    def test_hosts(self, pattern: str, host: str, *, matches: bool):
        assert (taken(router(route("r", hosts=[pattern])), "/", host=host) == "r") is matches

    def test_a_plain_host_wins_over_a_wildcard(self):
        found = router(route("wild", hosts=["*.example.com"]), route("plain", hosts=["a.example.com"]))
        assert taken(found, "/", host="a.example.com") == "plain"
        assert taken(found, "/", host="b.example.com") == "wild"

    def test_a_disabled_service_has_no_routes(self):
        assert taken(router(route("r", paths=["/"]), enabled=False), "/") is None

    def test_tricks_with_dots_and_slashes_do_not_lead_around_a_route(self):
        found = router(route("open", paths=["/"]), route("paid", paths=["/paid"]))
        for path in ("//paid/x", "/open/../paid", "/%70aid", "/./paid", "/open/%2e%2e/paid"):
            assert taken(found, path) == "paid"


class TestUpstreamPath:
    @pytest.mark.parametrize(
        ("service_path", "route_path", "strip", "path", "wanted"),
        [
            (None, "/weather", True, "/weather/v1/x", "/v1/x"),
            (None, "/weather", True, "/weather", "/"),
            (None, "/weather", True, "/weather/", "/"),
            (None, "/weather", False, "/weather/v1", "/weather/v1"),
            ("/api", "/weather", True, "/weather/v1", "/api/v1"),
            ("/api", "/weather", True, "/weather", "/api"),
            ("/api", "/weather", True, "/weather/", "/api/"),
            ("/api/", "/weather", True, "/weather", "/api"),
            ("/api/", "/weather", True, "/weather/v1", "/api/v1"),
            ("/api", "/weather", False, "/weather/v1", "/api/weather/v1"),
            ("/api", "/", False, "/", "/api"),
            ("/api/", "/", False, "/v1", "/api/v1"),
            (None, "/weat", True, "/weather", "/her"),
            (None, r"~/w/\d+", True, "/w/12/v1", "/v1"),
            (None, "/w", True, "/w/a%20b", "/a%20b"),
            (None, "/w", True, "/w/a%2Fb", "/a%2Fb"),
        ],
    )
    def test_path_handling_v0(
        self, service_path: str | None, route_path: str, path: str, wanted: str, *, strip: bool
    ):
        fields = {"path": service_path} if service_path else {}
        found = router(route("r", paths=[route_path], strip_path=strip), **fields)
        match = found.match(method="GET", raw_path=path, host=None)
        assert match is not None
        assert match.upstream_path == wanted


class TestNormalize:
    @pytest.mark.parametrize(
        ("path", "wanted"),
        [
            ("/", "/"),
            ("/a/./b/../c", "/a/c"),
            ("/a//b", "/a/b"),
            ("/%61%2f%2F", "/a%2F%2F"),
            ("/a/..", "/"),
            ("/../../a", "/a"),
            ("/a/.", "/a/"),
            ("/...", "/..."),
            ("/a b".replace(" ", "%20"), "/a b"),
        ],
    )
    def test_paths(self, path: str, wanted: str):
        assert normalize(path) == wanted

    def test_escape_encodes_what_cannot_stand_in_a_request_line(self):
        assert escape("/a b\x7f\xe9%20?") == "/a%20b%7F%E9%20?"
