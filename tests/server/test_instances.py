import time

import pytest

from tests.server.conftest import RunningServer, StartServer, eventually
from tests.server.kong_client import ClosedError, KongClient, pdk


def workers_seen(server: RunningServer, client: KongClient, instance: int) -> set[str]:
    """Run the event on several fresh connections and return the workers that ran it."""
    seen = set()
    for _ in range(8):
        outcome = client.handle_event(instance, "access", pdk({}), client.connect_anew())
        seen.add(outcome.calls[0][1]["pid"])
    return seen


class TestInstance:
    def test_started_on_one_worker_is_used_on_all(self, shared_server: RunningServer):
        client = shared_server.client()
        instance = client.start_instance("probe", {"do": "worker", "n": 1})
        assert workers_seen(shared_server, client, instance) == {str(pid) for pid in shared_server.workers()}

    def test_shares_the_plugin_object_with_equal_configurations(self, shared_server: RunningServer):
        client = shared_server.client()
        connection = client.connect_anew()
        objects = set()
        for number in range(3):
            bookkeeping = {"__seq__": number, "__plugin_id": str(number), "__key__": "k", "__ws_id": "w"}
            instance = client.start_instance(
                "probe", {"do": "worker", "route_id": "r1", **bookkeeping}, connection
            )
            outcome = client.handle_event(instance, "access", pdk({}), connection)
            objects.add(outcome.calls[0][1]["object"])
        other = client.start_instance("probe", {"do": "worker", "route_id": "r2"}, connection)
        different = client.handle_event(other, "access", pdk({}), connection).calls[0][1]["object"]
        assert len(objects) == 1
        assert different not in objects

    def test_has_an_id_of_its_own_whichever_worker_gave_it(self, shared_server: RunningServer):
        client = shared_server.client()
        ids = [client.start_instance("probe", {}, client.connect_anew()) for _ in range(40)]
        assert len(set(ids)) == 40
        assert all(0 < one < 2**31 for one in ids)

    def test_unknown_closes_the_connection_and_kong_starts_it_anew(self, shared_server: RunningServer):
        client = shared_server.client()
        with pytest.raises(ClosedError):
            client.handle_event(12345, "access")
        client.instances["probe" + '{"do": "headers"}'] = 12345
        outcome = client.request("probe", {"do": "headers"}, "access", pdk({}))
        assert (outcome.restarts, outcome.exit) == (1, None)

    def test_closed_is_unknown_on_every_worker(self, shared_server: RunningServer):
        client = shared_server.client()
        instance = client.start_instance("probe", {"do": "worker", "n": 2})
        workers_seen(shared_server, client, instance)
        answer = client.close_instance(instance)
        assert answer["instance_status"]["instance_id"] == instance
        for _ in range(8):
            with pytest.raises(ClosedError):
                client.handle_event(instance, "access", pdk({}), client.connect_anew())
        client.close_instance(instance)  # a second time is fine

    def test_of_a_refused_configuration_is_not_started(self, shared_server: RunningServer):
        client = shared_server.client()
        before = shared_server.metric("km_pluginserver_instances")
        for plugin, config in (("probe", {"do": "refuse", "secret": "hunter2hunter2"}), ("nobody", {})):
            with pytest.raises(ClosedError):
                client.start_instance(plugin, config)
        reasons = [line["reason"] for line in shared_server.messages("Kong's call is refused")]
        assert "probe refuses its configuration: ValueError: bad secret [redacted] in do" in reasons
        assert shared_server.metric("km_pluginserver_instances") == before

    def test_status_names_its_plugin(self, shared_server: RunningServer):
        client = shared_server.client()
        instance = client.start_instance("probe", {})
        status = client.call("cmd_get_instance_status", {"instance_id": instance})["instance_status"]
        assert status == {"name": "probe", "instance_id": instance}

    def test_plugins_can_be_asked_for(self, shared_server: RunningServer):
        client = shared_server.client()
        assert client.call("cmd_get_plugin_names", {})["plugin_names"] == {"names": ["probe"]}
        info = client.call("cmd_get_plugin_info", {"name": "probe"})["plugin_info"]
        assert (info["phases"], info["priority"]) == (["access", "log"], 77)


class TestInstanceIds:
    def test_start_at_random_each_time(self, start_server: StartServer):
        ids = []
        for _ in range(3):
            server = start_server(workers=1)
            ids.append(server.client().start_instance("probe", {}))
            server.stop()
        assert len(set(ids)) == 3
        assert all(abs(one - other) > 1 for one in ids for other in ids if one != other)

    def test_of_an_earlier_start_name_nothing(self, start_server: StartServer):
        server = start_server(workers=1)
        instance = server.client().start_instance("probe", {})
        server.stop()
        again = start_server(workers=1)
        with pytest.raises(ClosedError):
            again.client().handle_event(instance, "access", pdk({}))


class TestIdleInstance:
    def test_expires_and_one_in_use_does_not(self, start_server: StartServer):
        server = start_server("--instance-expiry-seconds", "2", workers=1)
        client = server.client()
        used = client.start_instance("probe", {"do": "headers", "n": 1})
        for number in range(5):
            client.start_instance("probe", {"do": "headers", "idle": number})

        def only_one_left() -> bool:
            client.handle_event(used, "access", pdk({}))
            return server.metric("km_pluginserver_instances") == 1

        eventually(only_one_left, "the idle expired")
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            assert client.handle_event(used, "access", pdk({})).exit is None
            time.sleep(0.05)


class TestLeftovers:
    def test_of_a_killed_server_are_removed_by_the_next(self, start_server: StartServer):
        server = start_server(workers=1)
        server.client().start_instance("probe", {})
        server.process.kill()
        server.process.wait()
        private = server.directory / "km.sock.instances"
        left = set(private.iterdir())
        assert left
        again = start_server(workers=1)
        assert not left & set(private.iterdir())
        again.stop()
        assert not private.exists()
