"""A plan that limits calls at a time needs a gateway that sees calls end, on every route of its product."""

from dataclasses import replace

import pytest

from control_plane.gateway_sync.base_config import parse_base_config
from control_plane.gateway_sync.render import ProductRouting, RenderSettings, concurrency_problems
from tests.control_plane.gateway_sync.test_render import (
    BASE,
    SETTINGS,
    WEATHER,
    base,
    door,
    problems,
    render,
    rendered,
    route,
)

LIMITED = replace(WEATHER, concurrency_plan="pro")
METER = {"name": "km-usage-meter", "config": {"concurrency": True}}


def names(document: dict, route_name: str) -> list[str]:
    return [plugin["name"] for plugin in route(document, route_name).get("plugins", [])]


def on_route(plugin: dict) -> dict:
    document = base()
    route(document, "forecast").setdefault("plugins", []).append(plugin)
    return document


class TestRoutesWithoutADoor:
    def test_are_given_a_meter_that_sees_calls_end(self):
        document = render(None, LIMITED)
        for name in ("forecast", "history"):
            assert route(document, name)["plugins"][-1] == METER
        assert document["plugins"] == [{"name": "prometheus"}]
        assert "km-usage-meter for plan 'pro' on route 'forecast'" in rendered(None, LIMITED).added

    def test_of_other_products_get_a_file_log_each(self):
        maps = ProductRouting("maps", "maps-api", ("maps",))
        document = render(None, LIMITED, maps)
        assert names(document, "maps") == ["km-monetize", "file-log"]
        assert document["plugins"] == [{"name": "prometheus"}]  # a global one would send the metered routes' twice

    def test_are_metered_with_the_units_they_are_billed_by(self):
        document = render(None, replace(LIMITED, unit_headers={"tokens": "x-tokens"}))
        config = route(document, "forecast")["plugins"][-1]["config"]
        assert config == {"concurrency": True, "unit_headers": {"tokens": "x-tokens"}}

    def test_need_no_spool_path(self):
        document = render(None, LIMITED, settings=RenderSettings(usage_spool_path=None))
        assert route(document, "history")["plugins"][-1] == METER


class TestOperatorsDoor:
    def test_that_is_a_file_log_is_refused_by_route_and_plan(self):
        found = problems(on_route(door()), LIMITED)
        (message,) = found.values()
        assert list(found) == ["services[0].routes[0].plugins[1]"]
        assert "plan 'pro' limits calls at a time, and is sold on route 'forecast'" in message
        assert "km-usage-meter with concurrency: true" in message

    @pytest.mark.parametrize("config", [{}, {"concurrency": False}, {"concurrency": None}])
    def test_that_is_a_meter_must_see_calls_end(self, config):
        found = problems(on_route({"name": "km-usage-meter", "config": config}), LIMITED)
        assert list(found) == ["services[0].routes[0].plugins[1].config.concurrency"]

    def test_that_sees_calls_end_is_kept(self):
        document = render(on_route(METER), LIMITED)
        assert names(document, "forecast") == ["cors", "km-usage-meter", "km-monetize"]

    def test_is_as_good_as_any_where_no_plan_limits_calls(self):
        assert names(render(on_route(door()), WEATHER), "forecast") == ["cors", "file-log", "km-monetize"]


class TestConcurrencyProblems:
    def test_are_found_alone(self):
        document = on_route(door(reopen=False))
        (problem,) = concurrency_problems(document, [LIMITED], SETTINGS)
        assert problem.field == "services[0].routes[0].plugins[1]"
        nowhere = replace(LIMITED, routes=("nowhere",))
        assert concurrency_problems(parse_base_config(BASE), [LIMITED, nowhere], SETTINGS) == []
        assert concurrency_problems(document, [WEATHER], SETTINGS) == []
