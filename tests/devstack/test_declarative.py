"""Loading kong.yml: what it means, and what is refused by name."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from devstack.gateway.declarative import load_configuration
from devstack.gateway.entities import Configuration
from devstack.gateway.plugin_catalog import PluginCatalog
from devstack.gateway.plugin_servers import PluginInfo, PluginServer
from devstack.gateway.problems import ConfigurationInvalidError
from devstack.kong_files import render_base_config
from gateway_contract.file_log import render_privacy_expression

REPOSITORY = Path(__file__).parents[2]
SERVER = PluginServer(name="a", socket="/tmp/none.sock", start_command=None, query_command="")


def plugin(name: str, priority: int, *fields: dict) -> PluginInfo:
    return PluginInfo(name, priority, "1.0.0", frozenset({"access"}), fields, SERVER)


CATALOG = PluginCatalog(
    [
        plugin("km-monetize", 1240, {"api_product": {"type": "string", "required": True}}),
        plugin("km-key-auth", 1240, {"api_product": {"type": "string"}}),
        plugin("km-usage-meter", 8),
        plugin("km-fused", 1000),
        plugin("switched-off", 1),
    ],
    enabled=["bundled", "km-monetize", "km-key-auth", "km-usage-meter", "km-fused", "not-there"],
)


def load(document: Any) -> Configuration:
    text = document if isinstance(document, str) else yaml.safe_dump(document)
    return load_configuration(text, catalog=CATALOG, first_sequence=5)


def weather(**changes: Any) -> dict[str, Any]:
    """A good configuration of one service and one route, with changes to the route."""
    route = {"name": "weather", "paths": ["/weather"], **changes}
    return {"_format_version": "3.0", "services": [{"name": "up", "host": "127.0.0.1", "routes": [route]}]}


def refusal(document: Any) -> ConfigurationInvalidError:
    with pytest.raises(ConfigurationInvalidError) as caught:
        load(document)
    return caught.value


def file_log(**config: Any) -> dict[str, Any]:
    expression = {"request.headers": render_privacy_expression({"tokens": "X-Usage-Tokens"})}
    return {"name": "file-log", "config": {"path": "/tmp/x.log", "custom_fields_by_lua": expression, **config}}


class TestLoading:
    def test_the_example_at_the_top_level_loads(self):
        text = (REPOSITORY / "kong.yml").read_text()
        loaded = load(text)
        (route,) = loaded.routes
        assert route.paths == ("/weather",)
        assert [(one.name, one.config.get("api_product")) for one in loaded.chains[route.id]] == [
            ("km-monetize", "weather"),
            ("file-log", None),
        ]

    def test_the_stack_changes_only_where_the_sample_api_and_the_spool_are(self):
        text = (REPOSITORY / "kong.yml").read_text()
        changed = yaml.safe_load(render_base_config(text, upstream_port=4711, spool_dir=Path("/tmp/spool")))
        original = yaml.safe_load(text)
        assert changed["services"][0].pop("port") == 4711
        assert changed["plugins"][0]["config"].pop("path") == "/tmp/spool/usage.log"
        del original["services"][0]["port"], original["plugins"][0]["config"]["path"]
        assert changed == original

    def test_ids_are_those_kong_makes_from_names(self):
        document = weather(name="km", plugins=[{"name": "km-fused"}])
        loaded = load(document)
        (route,) = loaded.routes
        # as recorded from Kong for a service `up`, a route `km` and a plugin `km-fused` on it
        assert route.service.id == "dea4c45f-3d88-5461-8ebd-05ae5bbbf87a"
        assert route.id == "0716b3b6-8d7e-5b64-aa5b-5e26b5732d39"
        assert [one.id for one in loaded.chains[route.id]] == ["fd9fe52a-a04f-5136-a600-e883a64d4c9d"]

    def test_plugins_run_by_priority_and_of_equals_the_later_name_first(self):
        document = weather(plugins=[{"name": "km-usage-meter"}, {"name": "km-key-auth"}])
        document["plugins"] = [file_log(), {"name": "km-monetize", "config": {"api_product": "weather"}}]
        loaded = load(document)
        (chain,) = loaded.chains.values()
        assert [one.name for one in chain] == ["km-monetize", "km-key-auth", "file-log", "km-usage-meter"]

    def test_the_closest_attachment_of_a_plugin_wins(self):
        document = weather(plugins=[{"name": "km-monetize", "config": {"api_product": "route"}}])
        document["services"][0]["plugins"] = [{"name": "km-monetize", "config": {"api_product": "service"}}]
        document["plugins"] = [{"name": "km-monetize", "config": {"api_product": "global"}}]
        loaded = load(document)
        assert [one.config["api_product"] for chain in loaded.chains.values() for one in chain] == ["route"]
        assert [one.config["api_product"] for one in loaded.global_chain] == ["global"]

    def test_a_disabled_plugin_does_not_run_and_hides_nothing(self):
        attached = {"name": "km-monetize", "enabled": False, "config": {"api_product": "route"}}
        document = weather(plugins=[attached])
        document["plugins"] = [{"name": "km-monetize", "config": {"api_product": "global"}}]
        assert [one.config["api_product"] for chain in load(document).chains.values() for one in chain] == [
            "global"
        ]

    def test_routes_and_plugins_may_stand_at_the_top_level(self):
        loaded = load(
            {
                "_format_version": "3.0",
                "services": [{"name": "up", "url": "http://127.0.0.1:9001/base"}],
                "routes": [{"name": "weather", "service": {"name": "up"}, "paths": ["/weather"]}],
                "plugins": [{"name": "km-fused", "route": "weather"}],
            }
        )
        (route,) = loaded.routes
        assert (route.service.host, route.service.port, route.service.path) == ("127.0.0.1", 9001, "/base")
        assert [one.route_id for one in loaded.chains[route.id]] == [route.id]

    def test_plugins_are_numbered_on_from_where_the_last_load_ended(self):
        document = weather(plugins=[{"name": "km-fused"}, {"name": "km-key-auth"}])
        (chain,) = load(document).chains.values()
        assert sorted(one.sequence for one in chain) == [5, 6]


class TestRefusals:
    @pytest.mark.parametrize(
        ("document", "sentence"),
        [
            (weather(snis=["a.example"]), "route 'weather': field 'snis' is not supported by the local gateway"),
            (
                weather(headers={"x": ["y"]}),
                "route 'weather': field 'headers' is not supported by the local gateway",
            ),
            (weather(pathss=["/x"]), "route 'weather': field 'pathss': unknown field"),
            (weather(paths=["weather"]), "route 'weather': field 'paths[0]': should start with"),
            (weather(paths=["~/(a"]), "route 'weather': field 'paths[0]': invalid regex"),
            (weather(strip_path="yes"), "route 'weather': field 'strip_path': expected a boolean"),
            (weather(path_handling="v1"), "route 'weather': field 'path_handling': expected one of: v0"),
            (weather(paths=None), "route 'weather': field '@entity': must set one of"),
            (weather(methods=["get"]), "route 'weather': field 'methods[0]': invalid value"),
            (weather(plugins=[{"name": "key-auth"}]), "plugin 'key-auth' is not supported by the local gateway"),
            (weather(plugins=[{"name": "switched-off"}]), "add it to the 'plugins' configuration property"),
            (weather(plugins=[{"name": "not-there"}]), "is enabled but no plugin server offers it"),
            (
                weather(plugins=[{"name": "km-monetize"}]),
                "plugin 'km-monetize': field 'config.api_product': required field missing",
            ),
            (
                weather(plugins=[{"name": "km-monetize", "config": {"api_product": "x", "plan": "free"}}]),
                "plugin 'km-monetize': field 'config.plan': unknown field",
            ),
            (
                weather(plugins=[{"name": "km-fused", "consumer": "bob"}]),
                "plugin 'km-fused': field 'consumer' is not supported by the local gateway",
            ),
            (weather(plugins=[{"name": "km-fused"}] * 2), "attached to the same place twice"),
            ({"_format_version": "3.0", "services": [{"name": "up"}]}, "service 'up': field 'host'"),
            (
                {"_format_version": "3.0", "services": [{"name": "up", "url": "https://h"}]},
                "service 'up': field 'protocol': expected one of: http",
            ),
            (
                {"_format_version": "3.0", "services": [{"name": "up", "host": "h", "tls_verify": True}]},
                "service 'up': field 'tls_verify' is not supported by the local gateway",
            ),
            (
                {"_format_version": "3.0", "services": [{"name": "up", "host": "h"}] * 2},
                "service 'up': field 'name': the name 'up' is used twice",
            ),
            (
                {"_format_version": "3.0", "consumers": [{"username": "bob"}]},
                "configuration: field 'consumers' is not supported by the local gateway",
            ),
            (
                {"_format_version": "3.0", "routes": [{"paths": ["/"]}]},
                "routes without a service are not supported",
            ),
            (
                {"_format_version": "3.0", "routes": [{"paths": ["/"], "service": "no"}]},
                "there is no service 'no'",
            ),
            ({"_format_version": "1.1"}, "field '_format_version': expected one of: 3.0"),
            ({"services": []}, "field '_format_version': required field missing"),
            ({"_format_version": "3.0", "services": {"name": "up"}}, "field 'services': expected an array"),
            ("_format_version: [", "failed parsing declarative configuration"),
            ("just text", "expected a declarative configuration"),
        ],
    )
    def test_names_entity_and_field(self, document: Any, sentence: str):
        assert sentence in str(refusal(document))

    def test_names_everything_at_once(self):
        document = weather(snis=["a"], strip_path=1, plugins=[{"name": "nope"}])
        assert len(refusal(document).sentences) == 3

    def test_shows_the_place_as_kong_does(self):
        fields = refusal(weather(snis=["a"])).fields
        assert fields["services"][0]["routes"][0]["snis"] == "is not supported by the local gateway"

    @pytest.mark.parametrize(
        "entries",
        [
            None,
            {},
            {"request.headers": "return nil"},
            {"request.headers": render_privacy_expression() + " "},
            {"request.headers": render_privacy_expression(), "x": "return 1"},
            {"x": render_privacy_expression()},
            {"request.headers": render_privacy_expression().replace("'request.uri',nil", "'request.uri',1")},
        ],
    )
    def test_file_log_carries_the_privacy_expression_or_is_refused(self, entries: Any):
        document = weather() | {"plugins": [file_log(custom_fields_by_lua=entries)]}
        assert "the local gateway runs no Lua" in str(refusal(document))

    def test_file_log_refuses_a_path_kong_refuses(self):
        assert "not a valid filename" in str(refusal(weather() | {"plugins": [file_log(path="/tmp/*.log")]}))
