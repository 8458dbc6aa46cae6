"""Which endpoint a path belongs to."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.usage.collect.endpoints import MAX_NAMES, EndpointNames, PathMatcher, Template, path_segments
from gateway_contract.usage_events import OTHER_ENDPOINT


def slow_find(templates: list[Template], method: str, path: str) -> str | None:
    """Try every template; of those that fit take the most literal from the left, then the first."""
    fitting = []
    segments = path_segments(path)
    for number, template in enumerate(templates):
        parts = path_segments(template.path)
        if template.method != method or len(parts) != len(segments):
            continue
        rank = []
        for part, segment in zip(parts, segments, strict=True):
            shape = re.sub(r"\{[^{}]*\}", "{}", part)
            pattern = ".+".join(map(re.escape, shape.split("{}")))
            if not re.fullmatch(pattern, segment, re.DOTALL):
                break
            rank.append((2, "") if shape == "{}" else (1, shape) if "{}" in shape else (0, ""))
        else:
            fitting.append((rank, number, template.name))
    return min(fitting)[2] if fitting else None


class TestPathMatcher:
    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("/weather/v1/current/oslo", "GET /weather/v1/current/{city}"),
            ("/weather/v1/current/oslo/", "GET /weather/v1/current/{city}"),
            ("/weather/v1/current/all", "GET /weather/v1/current/all"),
            ("/weather/v1/maps/7.png", "GET /weather/v1/maps/{id}.png"),
            ("/weather/v1/current", None),
            ("/weather/v1/current/oslo/now", None),
            ("/weather/v1/current//", None),
            ("/", "GET /"),
        ],
    )
    def test_finds_the_template(self, path, name):
        paths = ["/weather/v1/current/{city}", "/weather/v1/current/all", "/weather/v1/maps/{id}.png", "/"]
        assert PathMatcher(Template("GET", template) for template in paths).find("GET", path) == name

    def test_goes_back_where_a_literal_leads_nowhere(self):
        matcher = PathMatcher([Template("GET", "/a/b/c"), Template("GET", "/a/{x}/d")])
        assert matcher.find("GET", "/a/b/d") == "GET /a/{x}/d"

    def test_tells_methods_apart(self):
        matcher = PathMatcher([Template("get", "/a"), Template("POST", "/a")])
        assert matcher.find("GET", "/a") == "GET /a"
        assert matcher.find("POST", "/a") == "POST /a"
        assert matcher.find("DELETE", "/a") is None

    segments = st.sampled_from(["a", "b", "{x}", "{y}", "{x}.b", "a{x}", "{x}-{y}", "a.b"])
    templates = st.lists(
        st.builds(
            Template,
            st.sampled_from(["GET", "POST"]),
            st.lists(segments, max_size=4).map(lambda parts: "/" + "/".join(parts)),
        ),
        max_size=12,
    )
    paths = st.lists(st.sampled_from(["a", "b", "a.b", "ab", "a-b", "c", "a.b.b", ""]), max_size=5).map(
        lambda parts: "/" + "/".join(parts)
    )

    @settings(max_examples=500, deadline=None)
    @given(templates, paths)
    def test_agrees_with_trying_every_template(self, templates, path):
        assert PathMatcher(templates).find("GET", path) == slow_find(templates, "GET", path)


class TestEndpointNames:
    def test_fall_back_to_the_route(self):
        names = EndpointNames({"weather": [Template("GET", "/a")]})
        assert names.name("weather", "GET", "weather-v1", "/zzz") == "weather-v1"
        assert names.name("unknown", "GET", "weather-v1", "/a") == "weather-v1"
        assert names.name("weather", "GET", "", "/zzz") == OTHER_ENDPOINT

    def test_are_at_most_500_for_a_product(self):
        names = EndpointNames({"weather": [Template("GET", f"/{number}") for number in range(450)]})
        found = {names.name("weather", "GET", "r", f"/{number}") for number in range(450)}
        found |= {names.name("weather", "GET", f"route-{number}", "/zzz") for number in range(400)}
        assert len(found - {OTHER_ENDPOINT}) == MAX_NAMES
        assert OTHER_ENDPOINT in found
        assert names.name("other", "GET", "its-own-route", "/") == "its-own-route"

    def test_more_than_500_templates_leave_no_room_for_routes(self):
        names = EndpointNames({"weather": [Template("GET", f"/{number}") for number in range(501)]})
        assert names.name("weather", "GET", "route", "/499") == "GET /499"
        assert names.name("weather", "GET", "route", "/500") == OTHER_ENDPOINT

    def test_can_stand_in_a_database(self):
        assert "\0" not in EndpointNames().name("", "GET", "a\0b", "/")
