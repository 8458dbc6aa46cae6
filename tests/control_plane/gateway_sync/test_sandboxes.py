import pytest

from control_plane.gateway_sync.base_config import KongConfigError, index_base_config
from control_plane.gateway_sync.render import RenderSettings, render_kong_config
from control_plane.gateway_sync.sandboxes import sandbox_problem


def base(service: dict, *, place: str = "route") -> dict:
    plugin = {"name": "km-monetize", "config": {"api_product": "weather", "sandbox_upstream": "weather-sandbox"}}
    route = {"name": "forecast", "paths": ["/v1"]}
    document = {
        "_format_version": "3.0",
        "services": [{"name": "weather", **service, "routes": [route]}],
        "upstreams": [{"name": "weather-sandbox", "targets": [{"target": "127.0.0.1:9002"}]}],
    }
    owners = {"route": route, "service": document["services"][0], "everywhere": document}
    owners[place]["plugins"] = [plugin]
    return document


def problem_of(document: dict):
    indexed = index_base_config(document)
    return sandbox_problem(indexed, indexed.routes["forecast"])


class TestSandboxes:
    @pytest.mark.parametrize("place", ["route", "service", "everywhere"])
    @pytest.mark.parametrize(
        "service",
        [
            {"host": "10.0.0.7", "port": 80},
            {"host": "fd00::7"},
            {"url": "http://10.0.0.7:9000/v1"},
            {"url": "http://[fd00::7]:9000"},
        ],
    )
    def test_are_refused_where_kong_would_answer_test_keys_with_500(self, service, place):
        problem = problem_of(base(service, place=place))
        assert problem is not None
        assert problem.field.endswith("config.sandbox_upstream")
        assert "'forecast'" in problem.message

    @pytest.mark.parametrize(
        "service", [{"host": "weather.internal"}, {"url": "http://weather-live/v1"}, {"host": "localhost"}]
    )
    def test_are_fine_behind_a_service_with_a_name(self, service):
        assert problem_of(base(service)) is None

    def test_an_address_without_a_sandbox_is_fine(self):
        document = base({"host": "10.0.0.7"})
        del document["services"][0]["routes"][0]["plugins"][0]["config"]["sandbox_upstream"]
        assert problem_of(document) is None

    def test_stop_the_configuration_before_it_reaches_a_node(self):
        with pytest.raises(KongConfigError, match="the address 10"):
            render_kong_config(
                base({"host": "10.0.0.7"}), [], RenderSettings(usage_spool_path="/var/spool/km/u.log")
            )
