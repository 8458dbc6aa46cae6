import copy
import hashlib
from pathlib import Path

import pytest
import yaml

from control_plane.catalog.plan_file import parse_plan_file
from control_plane.gateway_sync.base_config import KongConfigError, parse_base_config
from control_plane.gateway_sync.render import (
    ProductRouting,
    RenderSettings,
    dump_config,
    render_kong_config,
)
from gateway_contract.file_log import EXPRESSION_KEY, render_privacy_expression
from gateway_contract.headers import DEFAULT_REPLAY_HEADERS

ROOT = Path(__file__).parents[3]
SPOOL = "/var/spool/km/live.jsonl"
SETTINGS = RenderSettings(usage_spool_path=SPOOL)
WEATHER = ProductRouting("weather", "weather-api", ("forecast", "history"))

BASE = """
_format_version: "3.0"
_transform: true
services:
  - name: weather-api
    url: http://127.0.0.1:9000
    routes:
      - name: forecast
        paths: [/v1/forecast]
        strip_path: false
        plugins:
          - name: cors
            config: {origins: ["*"]}
      - name: history
        paths: ["~/v1/history/\\\\d+$"]
      - name: status
        paths: [/status]
  - name: maps-api
    url: http://127.0.0.1:9001
    routes:
      - name: maps
        paths: [/maps]
plugins:
  - name: prometheus
upstreams:
  - name: pool
    targets: [{target: "127.0.0.1:9000"}]
"""


def base(text: str = BASE) -> dict:
    return parse_base_config(text)


def render(document: dict | None = None, *products: ProductRouting, settings: RenderSettings = SETTINGS) -> dict:
    return yaml.safe_load(rendered(document, *products, settings=settings).text)


def rendered(document=None, *products, settings=SETTINGS):
    return render_kong_config(base() if document is None else document, products or (WEATHER,), settings)


def problems(document, *products, settings=SETTINGS) -> dict[str, str]:
    with pytest.raises(KongConfigError) as caught:
        rendered(document, *products, settings=settings)
    return {problem.field: problem.message for problem in caught.value.problems}


def route(document: dict, name: str) -> dict:
    nested = [route for service in document["services"] for route in service.get("routes") or []]
    return next(route for route in [*nested, *document.get("routes", [])] if route["name"] == name)


def door(units: dict | None = None, replay: tuple[str, ...] = DEFAULT_REPLAY_HEADERS, **changes) -> dict:
    config = {
        "path": SPOOL,
        "reopen": True,
        "custom_fields_by_lua": {EXPRESSION_KEY: render_privacy_expression(units, replay)},
    }
    return {"name": "file-log", "config": config | changes}


class TestWhatIsAdded:
    def test_each_sold_route_gets_km_monetize_after_the_operators_plugins(self):
        document = render()
        assert route(document, "forecast")["plugins"] == [
            {"name": "cors", "config": {"origins": ["*"]}},
            {"name": "km-monetize", "config": {"api_product": "weather"}},
        ]
        assert route(document, "history")["plugins"] == [
            {"name": "km-monetize", "config": {"api_product": "weather"}}
        ]
        assert "plugins" not in route(document, "status")

    def test_usage_leaves_by_one_global_file_log(self):
        assert render()["plugins"] == [{"name": "prometheus"}, door()]

    def test_the_expression_reads_the_unit_headers_of_all_products(self):
        maps = ProductRouting("maps", "maps-api", ("maps",), {"tiles": "X-Tiles"})
        weather = ProductRouting("weather", "weather-api", ("forecast",), {"tokens": "x-tokens"})
        assert render(None, maps, weather)["plugins"][1] == door({"tiles": "x-tiles", "tokens": "x-tokens"})

    def test_the_expression_reads_the_replay_headers_of_all_products(self):
        maps = ProductRouting("maps", "maps-api", ("maps",), replay_header="X-From-Cache")
        zoo = ProductRouting("zoo", "weather-api", ("history",), replay_header="")
        weather = ProductRouting("weather", "weather-api", ("forecast",))
        assert render(None, maps, zoo, weather)["plugins"][1] == door(
            replay=("idempotent-replayed", "x-from-cache")
        )
        assert render(None, zoo)["plugins"][1] == door(replay=())

    def test_nothing_at_all_without_products(self):
        assert yaml.safe_load(render_kong_config(base(), [], SETTINGS).text) == base()

    def test_everything_else_stays_as_and_where_it_was(self):
        document = render()
        for name in ("forecast", "history"):
            plugins = route(document, name)["plugins"]
            del plugins[-1]
            if not plugins:
                del route(document, name)["plugins"]
        del document["plugins"][-1]
        assert document == base()
        assert list(document) == list(base())

    def test_the_base_is_left_alone(self):
        document = base()
        before = copy.deepcopy(document)
        rendered(document)
        assert document == before

    def test_equal_input_gives_equal_bytes_whatever_the_order_of_products(self):
        maps = ProductRouting("maps", "maps-api", ("maps",))
        assert rendered(None, maps, WEATHER) == rendered(None, WEATHER, maps)

    def test_the_hash_is_the_one_kong_shows(self):
        result = rendered()
        assert result.hash == hashlib.md5(result.text.encode()).hexdigest()

    def test_says_in_words_what_was_added(self):
        assert rendered().added == (
            "km-monetize for API product 'weather' on route 'forecast'",
            "km-monetize for API product 'weather' on route 'history'",
            f"file-log for usage to {SPOOL}, on every route",
        )

    def test_long_texts_are_not_folded(self):
        assert f"{EXPRESSION_KEY}: {render_privacy_expression({}, DEFAULT_REPLAY_HEADERS)}" in rendered().text

    def test_rendering_the_result_again_adds_nothing(self):
        once = render()
        assert yaml.safe_load(rendered(once).text) == once


class TestWhatTheOperatorAttached:
    @pytest.mark.parametrize("name", ["km-monetize", "km-key-auth"])
    @pytest.mark.parametrize("place", ["route", "service", "global", "top level"])
    def test_km_monetize_or_km_key_auth_is_not_attached_again(self, name, place):
        document = base()
        plugin = {"name": name, "config": {"api_product": "weather"}}
        if place == "route":
            route(document, "history")["plugins"] = [plugin]
        elif place == "service":
            document["services"][0]["plugins"] = [plugin]
        elif place == "global":
            document["plugins"].append(plugin)
        else:
            document["plugins"].append(plugin | {"route": "history"})
        result = render(document, ProductRouting("weather", "weather-api", ("history",)))
        assert [p for p in route(result, "history").get("plugins", []) if p != plugin] == []

    def test_another_product_on_the_route_is_an_error(self):
        document = base()
        route(document, "history")["plugins"] = [{"name": "km-monetize", "config": {"api_product": "maps"}}]
        found = problems(document)
        assert "'maps'" in found["services[0].routes[1].plugins[0].config.api_product"]

    def test_a_km_monetize_that_is_switched_off_is_an_error(self):
        document = base()
        route(document, "history")["plugins"] = [
            {"name": "km-monetize", "enabled": False, "config": {"api_product": "weather"}}
        ]
        assert "switched off" in problems(document)["services[0].routes[1].plugins[0]"]

    def test_km_usage_meter_on_every_sold_route_needs_no_file_log(self):
        document = base()
        document["services"][0]["plugins"] = [{"name": "km-usage-meter", "config": {}}]
        assert render(document)["plugins"] == [{"name": "prometheus"}]

    def test_beside_metered_routes_the_others_get_a_file_log_of_their_own(self):
        document = base()
        route(document, "history")["plugins"] = [{"name": "km-usage-meter"}]
        result = render(document)
        assert result["plugins"] == [{"name": "prometheus"}]
        assert route(result, "forecast")["plugins"][-1] == door()
        assert door() not in route(result, "history")["plugins"]

    def test_a_meter_that_misses_unit_headers_is_refused(self):
        document = base()
        document["services"][0]["plugins"] = [{"name": "km-usage-meter", "config": {"unit_headers": {"a": "x-a"}}}]
        weather = ProductRouting("weather", "weather-api", ("forecast",), {"a": "X-A", "b": "X-B"})
        message = problems(document, weather)["services[0].plugins[0].config.unit_headers"]
        assert "b from X-B" in message
        assert "a from" not in message

    @pytest.mark.parametrize(
        ("config", "header", "missing"),
        [
            ({}, "idempotent-replayed", None),
            ({"replay_headers": ["Idempotent-Replayed"]}, "idempotent-replayed", None),
            ({"replay_headers": []}, "", None),
            ({"replay_headers": []}, "idempotent-replayed", "idempotent-replayed"),
            ({}, "X-From-Cache", "x-from-cache"),
        ],
    )
    def test_a_meter_that_misses_the_replay_header_is_refused(self, config, header, missing):
        document = base()
        document["services"][0]["plugins"] = [{"name": "km-usage-meter", "config": config}]
        weather = ProductRouting("weather", "weather-api", ("forecast",), replay_header=header)
        if missing is None:
            assert render(document, weather)["plugins"] == [{"name": "prometheus"}]
        else:
            message = problems(document, weather)["services[0].plugins[0].config.replay_headers"]
            assert f"does not read {missing}, by which the upstream of route 'forecast'" in message

    def test_his_file_log_with_our_expression_is_enough(self):
        document = base()
        document["plugins"].append(door())
        assert render(document)["plugins"] == [{"name": "prometheus"}, door()]

    def test_his_file_log_elsewhere_shadows_ours_and_is_refused(self):
        document = base()
        route(document, "history")["plugins"] = [{"name": "file-log", "config": {"path": "/var/log/history"}}]
        assert "'history'" in problems(document)["services[0].routes[1].plugins[0]"]

    def test_our_expression_into_another_file_is_told_apart(self):
        document = base()
        document["plugins"].append(door(path="/tmp/usage.log"))
        message = problems(document)["plugins[1].config.path"]
        assert "'/tmp/usage.log'" in message
        assert repr(SPOOL) in message

    def test_his_file_log_on_a_route_that_is_not_sold_is_his(self):
        document = base()
        own = {"name": "file-log", "config": {"path": "/var/log/status"}}
        route(document, "status")["plugins"] = [own]
        assert route(render(document), "status")["plugins"] == [own]

    def test_his_file_log_beside_km_usage_meter_is_his(self):
        document = base()
        own = {"name": "file-log", "config": {"path": "/var/log/all"}}
        document["plugins"] = [own, {"name": "km-usage-meter"}]
        assert render(document)["plugins"] == [own, {"name": "km-usage-meter"}]

    def test_a_route_he_monetized_himself_gets_the_door(self):
        document = base()
        route(document, "maps")["plugins"] = [{"name": "km-monetize", "config": {"api_product": "maps"}}]
        result = yaml.safe_load(render_kong_config(document, [], SETTINGS).text)
        assert result["plugins"][-1] == door(replay=())


class TestSpoolWriters:
    FIELD = "plugins[1].config.custom_fields_by_lua"

    @pytest.mark.parametrize(
        "fields",
        [
            None,
            {},
            {EXPRESSION_KEY: "return nil"},
            {EXPRESSION_KEY: render_privacy_expression(), "extra": "return 1"},
            {"request.uri": render_privacy_expression()},
        ],
    )
    def test_a_file_log_to_the_spool_that_would_write_keys_is_refused(self, fields):
        document = base()
        document["plugins"].append(door(custom_fields_by_lua=fields))
        assert "writes API keys" in problems(document)[self.FIELD]

    def test_also_on_a_route_that_is_not_sold(self):
        document = base()
        route(document, "status")["plugins"] = [door(custom_fields_by_lua={}, path="/var/spool/km/./live.jsonl")]
        assert "services[0].routes[2].plugins[0].config.custom_fields_by_lua" in problems(document)

    def test_missing_unit_headers_are_named(self):
        document = base()
        document["plugins"].append(door())
        weather = ProductRouting("weather", "weather-api", ("forecast",), {"tokens": "X-Tokens"})
        assert "tokens from X-Tokens" in problems(document, weather)[self.FIELD]

    def test_a_missing_replay_header_is_named(self):
        document = base()
        document["plugins"].append(door(replay=("x-from-cache",)))
        assert "does not read idempotent-replayed" in problems(document)[self.FIELD]
        weather = ProductRouting("weather", "weather-api", ("forecast",), replay_header="X-From-Cache")
        assert render(document, weather)["plugins"][-1] == door(replay=("x-from-cache",))

    def test_more_unit_headers_than_needed_do_no_harm(self):
        document = base()
        document["plugins"].append(door({"tokens": "x-tokens"}))
        assert render(document)["plugins"][-1] == door({"tokens": "x-tokens"})

    def test_reopen_must_be_on(self):
        document = base()
        document["plugins"].append(door(reopen=False))
        assert "must be true" in problems(document)["plugins[1].config.reopen"]

    def test_no_path_and_no_meter_is_an_error(self):
        found = problems(base(), settings=RenderSettings(usage_spool_path=None))
        assert "no usage spool path" in found["services[0].routes[0]"]


class TestProductsThatDoNotFit:
    def test_a_missing_route_is_named_with_its_product(self):
        found = problems(base(), ProductRouting("weather", "weather-api", ("nowhere",)))
        message = found["api_products[weather].routes"]
        assert "'weather'" in message
        assert "'nowhere'" in message

    def test_a_missing_service_is_named_with_its_product(self):
        found = problems(base(), ProductRouting("weather", "no-api", ("forecast",)))
        message = found["api_products[weather].service"]
        assert "'weather'" in message
        assert "'no-api'" in message

    def test_a_route_of_another_service(self):
        found = problems(base(), ProductRouting("weather", "weather-api", ("maps",)))
        assert "'maps-api'" in found["api_products[weather].routes"]

    def test_a_route_of_two_products(self):
        found = problems(base(), WEATHER, ProductRouting("zoo", "weather-api", ("forecast",)))
        message = found["api_products[zoo].routes"]
        assert "'weather'" in message
        assert "'zoo'" in message

    def test_one_dimension_from_two_headers(self):
        found = problems(
            base(),
            ProductRouting("maps", "maps-api", ("maps",), {"tokens": "x-tiles"}),
            ProductRouting("weather", "weather-api", ("forecast",), {"tokens": "x-tokens"}),
        )
        assert "'x-tiles'" in found["api_products[weather].unit_headers.tokens"]

    def test_all_problems_are_told_at_once(self):
        found = problems(base(), ProductRouting("weather", "no-api", ("nowhere",)))
        assert set(found) == {"api_products[weather].service", "api_products[weather].routes"}


class TestShippedFiles:
    def test_kong_yml_and_plans_yml_fit_together(self):
        document = parse_base_config((ROOT / "kong.yml").read_text())
        products = parse_plan_file((ROOT / "plans.yml").read_text()).products
        routings = [ProductRouting(p.code, p.service, p.routes, p.unit_headers, p.replay_header) for p in products]
        (file_log,) = (plugin for plugin in document["plugins"] if plugin["name"] == "file-log")
        settings = RenderSettings(usage_spool_path=file_log["config"]["path"])
        assert render_kong_config(document, routings, settings).added == ()


class TestBase:
    def test_aliases_and_merge_keys_work_as_in_kong(self):
        text = "x: &x {a: 1}\ny: {<<: *x, b: 2}\n"
        assert parse_base_config(text)["y"] == {"a": 1, "b": 2}

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"_format_version": None}, "_format_version"),
            ({"_format_version": 3.0}, "_format_version"),
            ({"_format_version": "9.9"}, "_format_version"),
            ({"services": {"name": "x"}}, "services"),
            ({"services": ["x"]}, "services[0]"),
            ({"services": [{"name": 5}]}, "services[0].name"),
            ({"services": [{"name": "a"}, {"name": "a"}]}, "services[1].name"),
            (
                {"services": [{"name": "a", "routes": [{"name": "r"}]}], "routes": [{"name": "r"}]},
                "routes[0].name",
            ),
            ({"services": [], "routes": [{"name": "r", "service": "gone"}]}, "routes[0].service"),
            ({"plugins": [{"name": "cors"}, {"name": "cors"}]}, "plugins[1]"),
            ({"plugins": [{"config": {}}]}, "plugins[0].name"),
            ({"plugins": [{"name": "cors", "config": []}]}, "plugins[0].config"),
            ({"plugins": [{"name": "cors", "route": "gone"}]}, "plugins[0].route"),
        ],
    )
    def test_an_error_names_the_field(self, change, field):
        assert field in problems(base() | change)

    @pytest.mark.parametrize("text", ["[1, 2]", "", "a: [", "just words", "a: 1\na: 2\n", "? [a]\n: 1\n"])
    def test_a_text_that_is_no_configuration_is_refused(self, text):
        with pytest.raises(KongConfigError, match=r"kong\.yml"):
            parse_base_config(text)

    def test_routes_and_plugins_at_the_top_level_are_found(self):
        document = {
            "_format_version": "3.0",
            "services": [{"name": "weather-api", "url": "http://127.0.0.1:9000"}],
            "routes": [{"name": "forecast", "paths": ["/"], "service": {"name": "weather-api"}}],
        }
        result = render(document, ProductRouting("weather", "weather-api", ("forecast",)))
        assert result["routes"][0]["plugins"] == [{"name": "km-monetize", "config": {"api_product": "weather"}}]
        assert result["plugins"] == [door()]

    def test_a_plugin_for_some_consumers_counts_for_nothing(self):
        document = base()
        document["plugins"].append(door() | {"consumer": "ada"})
        assert render(document)["plugins"][-1] == door()

    def test_dumping_keeps_the_order_of_keys(self):
        assert dump_config({"b": 1, "a": [{"z": 1, "y": 2}]}) == "b: 1\na:\n- z: 1\n  y: 2\n"
