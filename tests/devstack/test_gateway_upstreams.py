"""Upstreams of the local gateway: what the file may say, and where requests go."""

from collections import Counter
from typing import Any

import httpx
import pytest
import yaml

from devstack.gateway.upstreams import NoTargetError, Target, Upstream, find_upstream, split_target
from devstack.ports import free_port
from tests.devstack.support import RunningGateway
from tests.devstack.test_declarative import load, refusal, weather
from tests.end_to_end.recorder import recording_upstream


def with_upstreams(*upstreams: dict[str, Any], **more: Any) -> dict[str, Any]:
    return weather() | {"upstreams": list(upstreams)} | more


class TestReading:
    def test_targets_stand_in_the_upstream_or_at_the_top_level(self):
        found = load(
            with_upstreams(
                {
                    "name": "live.api",
                    "targets": [{"target": "127.0.0.1:9001"}, {"target": "localhost", "weight": 0}],
                },
                {"name": "sandbox", "host_header": "sandbox.example"},
                targets=[{"target": "[::1]:9002", "upstream": "sandbox", "weight": 5}],
            )
        ).upstreams
        assert found["live.api"].targets == (Target("127.0.0.1", 9001, 100), Target("localhost", 8000, 0))
        assert found["sandbox"].targets == (Target("::1", 9002, 5),)
        assert (found["live.api"].host_header, found["sandbox"].host_header) == (None, "sandbox.example")

    @pytest.mark.parametrize(
        ("document", "sentence"),
        [
            (with_upstreams({}), "upstream '0': field 'name': required field missing"),
            (
                with_upstreams({"name": "x", "healthchecks": {"active": {}}}),
                "upstream 'x': field 'healthchecks' is not supported by the local gateway",
            ),
            (
                with_upstreams({"name": "x", "hash_on_header": "x-a"}),
                "upstream 'x': field 'hash_on_header' is not supported by the local gateway",
            ),
            (
                with_upstreams({"name": "x", "algorithm": "least-connections"}),
                "upstream 'x': field 'algorithm': expected one of: round-robin",
            ),
            (
                with_upstreams({"name": "10.0.0.1"}),
                "upstream '10.0.0.1': field 'name': Invalid name; no ip addresses",
            ),
            (with_upstreams({"name": "a b"}), "upstream 'a b': field 'name': Invalid name"),
            (with_upstreams({"name": "x"}, {"name": "x"}), "the name 'x' is used twice in upstreams"),
            (with_upstreams({"name": "x", "targets": [{}]}), "field 'target': required field missing"),
            (with_upstreams({"name": "x", "targets": [{"target": "a:b"}]}), "not a valid hostname or ip address"),
            (with_upstreams({"name": "x", "targets": [{"target": "a", "weight": 65_536}]}), "field 'weight'"),
            (with_upstreams(targets=[{"target": "a", "upstream": "x"}]), "there is no upstream 'x'"),
        ],
    )
    def test_what_cannot_be_done_is_refused_by_name(self, document: dict[str, Any], sentence: str):
        assert sentence in str(refusal(document))

    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("127.0.0.1:1", ("127.0.0.1", 1)),
            ("api.example", ("api.example", 8000)),
            ("[::1]:9", ("::1", 9)),
            ("[::1]", ("::1", 8000)),
            ("a:65536", None),
            ("a:b:1", None),
            (":1", None),
        ],
    )
    def test_a_target_is_host_and_port(self, text: str, address: tuple[str, int] | None):
        assert split_target(text) == address


class TestTurns:
    def test_each_target_gets_its_share_evenly_spread(self):
        upstream = Upstream("x", (Target("a", 1, 3), Target("b", 1, 1), Target("c", 1, 0)))
        taken = "".join(target.host for target in (upstream.next_target() for _ in range(12)) if target)
        assert taken == "aaba" * 3

    def test_without_weights_there_is_none(self):
        assert Upstream("x", (Target("a", 1, 0),)).next_target() is None

    def test_a_host_is_looked_up_only_where_the_services_host_is_a_name(self):
        known = {"pool": Upstream("pool", (Target("a", 1, 1),)), "empty": Upstream("empty", ())}
        assert find_upstream("pool", service_host="pool", upstreams=known) is known["pool"]
        assert find_upstream("other", service_host="pool", upstreams=known) is None
        assert find_upstream("10.0.0.2", service_host="10.0.0.1", upstreams=known) is None
        for host, service_host, status in (("pool", "10.0.0.1", 500), ("pool", "::1", 500), ("empty", "x", 503)):
            with pytest.raises(NoTargetError) as caught:
                find_upstream(host, service_host=service_host, upstreams=known)
            assert caught.value.status == status


class TestTraffic:
    def test_goes_to_the_targets_in_turn_and_says_so_in_the_log(self, gateway: RunningGateway):
        with recording_upstream() as first, recording_upstream() as second:
            targets = [
                {"target": f"127.0.0.1:{first.port}", "weight": 200},
                {"target": f"127.0.0.1:{second.port}", "weight": 100},
            ]
            gateway.apply(configuration(gateway, {"name": "pool", "targets": targets}, host="pool", port=1))
            for number in range(9):
                assert httpx.get(f"{gateway.url}/weather/{number}").status_code == 200
            assert (len(first.seen), len(second.seen)) == (6, 3)
            hosts = Counter(headers["host"] for _, headers in [*first.seen, *second.seen])
            assert hosts == {f"127.0.0.1:{first.port}": 6, f"127.0.0.1:{second.port}": 3}

    def test_a_target_that_is_down_is_passed_over_by_the_next_try(self, gateway: RunningGateway):
        with recording_upstream() as alive:
            targets = [{"target": f"127.0.0.1:{free_port()}"}, {"target": f"127.0.0.1:{alive.port}"}]
            upstream = {"name": "pool", "host_header": "api.example", "targets": targets}
            gateway.apply(configuration(gateway, upstream, host="pool"))
            assert httpx.get(f"{gateway.url}/weather/x").status_code == 200
            assert alive.seen[0][1]["host"] == f"api.example:{alive.port}"

    def test_an_upstream_without_targets_answers_503_in_kongs_words(self, gateway: RunningGateway):
        gateway.apply(configuration(gateway, {"name": "pool"}, host="pool"))
        answer = httpx.get(f"{gateway.url}/weather/x")
        assert (answer.status_code, answer.json()["message"]) == (
            503,
            "failure to get a peer from the ring-balancer",
        )


def configuration(gateway: RunningGateway, *upstreams: dict[str, Any], **service: Any) -> str:

    document = yaml.safe_load(gateway.configuration(**service))
    return yaml.safe_dump(document | {"upstreams": list(upstreams)})
