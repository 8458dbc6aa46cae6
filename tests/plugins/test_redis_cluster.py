"""The gateway on a Redis Cluster: every call goes to its account's node, once, whatever happens to the nodes."""

import contextlib
import time
from dataclasses import replace
from functools import partial

import gevent
import hiredis
import pytest
import redis

from devstack.stores.valkey_cluster import open_redis
from gateway_contract import redis_names
from gateway_contract.api_keys import generate_api_key, hash_api_key
from gateway_contract.modes import Mode
from gateway_contract.records import KeyStatus, RedisDownPolicy, Window
from kong_plugins.parts import redis_link
from kong_plugins.parts.news import News
from kong_plugins.parts.redis_cluster import ClusterLink
from kong_plugins.parts.redis_connection import RedisAwayError, RedisRefusedError, encode_command
from kong_plugins.parts.redis_endpoint import ClusterEndpoint, RedisEndpoint, parse_redis_url
from kong_plugins.parts.settings import SettingsError, read_settings
from tests.plugins.conftest import make_call
from tests.plugins.fakes import (
    SECRET,
    Projected,
    call_number,
    eventually,
    grant,
)

MANY = 24


within_30_seconds = partial(eventually, seconds=30.0)


@pytest.fixture
def worker(cluster_url, start_worker):
    return start_worker(cluster_url)


@pytest.fixture
def project(cluster_url):
    made = []

    def write(**changes):
        made.append(Projected(cluster_url, **changes))
        return made[-1]

    yield write
    for projected in made:
        projected.close()


@pytest.fixture
def link(valkey_cluster):
    link = ClusterLink(ClusterEndpoint(tuple(RedisEndpoint(port=node.port) for node in valkey_cluster.nodes)))
    yield link
    link.close()


def slot_of_account(account):
    return redis_names.slot_of(redis_names.account_versions(account))


def node_client(node):
    return redis.Redis.from_url(node.url)


class TestUrl:
    def test_names_some_nodes_of_a_cluster(self):
        url = "rediss+cluster://u:p@a:1,b:2?ssl_ca_certs=/ca.pem"
        endpoint = RedisEndpoint(host="a", port=1, tls=True, ca_file="/ca.pem", username="u", password="p")
        assert parse_redis_url(url) == ClusterEndpoint((endpoint, replace(endpoint, host="b", port=2)))

    def test_of_another_form_is_refused_by_the_name_of_its_variable(self):
        with pytest.raises(SettingsError, match=r"^KM_REDIS_URL: a cluster has no database numbers$"):
            read_settings({"KM_REDIS_URL": "redis+cluster://a:1/2", "KM_GATEWAY_SECRET": SECRET})


class TestCalls:
    def test_of_every_account_find_their_node(self, project, worker):
        accounts = [project(account=f"acc_{number}") for number in range(MANY)]
        assert [make_call(account.text).code for account in accounts] == ["served"] * MANY
        assert [call_number(make_call(account.text)) for account in accounts] == [2] * MANY
        assert len({id(worker.link._by_slot[slot_of_account(f"acc_{number}")]) for number in range(MANY)}) == 3

    def test_of_one_account_keep_its_limit_on_all_gateways(self, project, start_worker, cluster_url):
        account = project(grant=grant(windows=(Window(5, 60_000),)))
        codes = []
        for _ in range(3):
            start_worker(cluster_url)
            codes += [make_call(account.text).code for _ in range(3)]
        assert codes == ["served"] * 5 + ["rate_limited"] * 4

    def test_at_once_share_batches_by_node(self, project, worker):
        accounts = [project(account=f"acc_{number}") for number in range(MANY)]
        for account in accounts:
            make_call(account.text)
        before = redis_link._batches.value
        jobs = [gevent.spawn(make_call, account.text) for account in accounts]
        gevent.joinall(jobs, raise_error=True)
        assert [call_number(job.value) for job in jobs] == [2] * MANY
        assert redis_link._batches.value - before <= 6

    def test_of_a_revoked_key_are_refused_at_once(self, project, worker):
        account = project()
        assert make_call(account.text).served
        account.change_key(status=KeyStatus.REVOKED)
        assert make_call(account.text).code == "key_revoked"

    def test_go_on_after_scripts_were_flushed_on_one_node(self, project, worker, valkey_cluster):
        accounts = [project(account=f"acc_{number}") for number in range(MANY)]
        for account in accounts:
            make_call(account.text)
        with node_client(valkey_cluster.nodes[1]) as client:
            client.script_flush()
        assert [call_number(make_call(account.text)) for account in accounts] == [2] * MANY


class TestMovedSlot:
    def test_is_followed_and_consumes_once(self, project, worker):
        account = project()
        assert call_number(make_call(account.text)) == 1
        slot = slot_of_account("acc_1")
        worker.link._by_slot[slot] = next(
            one for one in worker.link._links.values() if one is not worker.link._by_slot[slot]
        )
        assert [call_number(make_call(account.text)) for _ in range(2)] == [2, 3]
        assert account.counters()["calls"] == 3

    def test_is_followed_while_it_moves_and_consumes_once(self, project, worker, valkey_cluster):
        account = project(grant=grant(windows=(), quota=None))
        assert call_number(make_call(account.text)) == 1
        with moving(valkey_cluster, slot_of_account("acc_1")) as move:
            assert call_number(make_call(account.text)) == 0, "half here, half there: decided by the policy"
            move()
            within_30_seconds(lambda: call_number(make_call(account.text)) > 0)
            counted = account.counters()["calls"]
            assert call_number(make_call(account.text)) == counted + 1

    def test_asks_the_new_node_for_names_that_are_there_already(self, link, valkey_cluster, cluster_url):
        name = "moved"
        slot = redis_names.slot_of(name)
        with open_redis(cluster_url) as client:
            client.set(name, "here")
        get = encode_command("GET", name)
        assert link.ask_one(get, slot) == b"here"
        with moving(valkey_cluster, slot) as move:
            source = valkey_cluster.primary_of(slot)
            move_names(slot, source, next(node for node in valkey_cluster.nodes if node is not source))
            assert link.ask_one(get, slot) == b"here"
            assert link.ask([get, get], slot) == [b"here", b"here"]
            move()
            assert link.ask_one(get, slot) == b"here"

    def test_that_nobody_has_is_away(self, link):
        link.ask_one(encode_command("GET", "x"), redis_names.slot_of("x"))
        link._by_slot[7] = None
        with pytest.raises(RedisAwayError):
            link.ask_one(encode_command("GET", "y"), 7)
        within_30_seconds(lambda: link._by_slot[7] is not None)


class TestLink:
    def test_tells_an_error_from_a_reply(self, link):
        with pytest.raises(RedisRefusedError, match="wrong number"):
            link.ask_one(encode_command("GET"), 0)

    def test_finds_the_cluster_by_any_node_that_is_there(self, valkey_cluster):
        seeds = (RedisEndpoint(port=1), RedisEndpoint(port=valkey_cluster.nodes[2].port))
        link = ClusterLink(ClusterEndpoint(seeds))
        assert link.ask_one(encode_command("GET", "nothing"), redis_names.slot_of("nothing")) is None
        link.close()

    def test_fails_at_once_while_no_node_is_there_and_finds_them_later(self, own_valkey_cluster):
        cluster = own_valkey_cluster(primaries=1, replicas=0)
        node = cluster.nodes[0]
        node.stop()
        link = ClusterLink(ClusterEndpoint((RedisEndpoint(port=node.port),)))
        for _ in range(2):
            with pytest.raises(RedisAwayError):
                link.ask_one(encode_command("GET", "x"), redis_names.slot_of("x"))
        assert link.is_away
        node.start()
        cluster.wait_whole()
        within_30_seconds(lambda: not link.is_away)
        assert link.ask_one(encode_command("GET", "x"), redis_names.slot_of("x")) is None
        link.close()

    def test_is_away_on_a_server_that_is_no_cluster(self, redis_url, valkey_server):
        link = ClusterLink(ClusterEndpoint((RedisEndpoint(port=valkey_server.port),)))
        with pytest.raises(RedisAwayError):
            link.ask_one(encode_command("GET", "x"), 0)
        link.close()

    def test_gives_its_name_and_password_to_every_node(self, own_valkey_cluster):
        cluster = own_valkey_cluster(primaries=2, replicas=0)
        for node in cluster.nodes:
            with node_client(node) as client:
                client.config_set("requirepass", "sec:ret")
        seed = RedisEndpoint(port=cluster.nodes[0].port, password="sec:ret")
        link = ClusterLink(ClusterEndpoint((seed,)))
        for name in ("a", "b", "c", "d"):
            assert link.ask_one(encode_command("GET", name), redis_names.slot_of(name)) is None
        link.close()
        link = ClusterLink(ClusterEndpoint((RedisEndpoint(port=cluster.nodes[0].port, password="wrong"),)))
        with pytest.raises(RedisAwayError):
            link.ask_one(encode_command("GET", "a"), redis_names.slot_of("a"))
        link.close()


class TestNodeWithoutAnAddress:
    def test_that_calls_itself_unknown_is_left_out_until_it_has_a_name(self, own_valkey_cluster):
        cluster = own_valkey_cluster(replicas=0)
        for node in cluster.nodes:
            with node_client(node) as client:
                client.config_set("cluster-preferred-endpoint-type", "hostname")
        names = {cluster.primary_of(redis_names.slot_of(name)).port: name for name in map(str, range(100))}
        named, *others = cluster.nodes
        announce(cluster, named)
        link = ClusterLink(ClusterEndpoint((RedisEndpoint(port=named.port),)))
        slots = {node.port: redis_names.slot_of(names[node.port]) for node in cluster.nodes}
        assert link.ask_one(encode_command("GET", names[named.port]), slots[named.port]) is None
        for node in others:
            with pytest.raises(RedisAwayError):
                link.ask_one(encode_command("GET", names[node.port]), slots[node.port])
        announce(cluster, *others)
        within_30_seconds(lambda: asks(link, [(names[node.port], slots[node.port]) for node in others]))
        link.close()

    def test_that_names_no_host_is_where_it_was_asked(self, own_valkey_cluster):
        cluster = own_valkey_cluster(replicas=0)
        for node in cluster.nodes:
            with node_client(node) as client:
                client.config_set("cluster-preferred-endpoint-type", "unknown-endpoint")
        link = ClusterLink(ClusterEndpoint((RedisEndpoint(port=cluster.nodes[0].port),)))
        assert {link.ask_one(encode_command("GET", name), redis_names.slot_of(name)) for name in "abcdef"} == {
            None
        }
        slot = redis_names.slot_of("a")
        link._by_slot[slot] = next(one for one in link._links.values() if one is not link._by_slot[slot])
        assert link.ask_one(encode_command("GET", "a"), slot) is None, "MOVED without a host"
        link.close()

    def test_that_a_slot_has_moved_to_is_away(self, link):
        moved = hiredis.ReplyError("MOVED 7 ?:6381")
        link.ask_one(encode_command("GET", "x"), redis_names.slot_of("x"))
        before = set(link._links)
        with pytest.raises(RedisAwayError):
            link._follow(link._by_slot[7], encode_command("GET", "y"), 7, moved)
        assert set(link._links) == before

    def test_of_which_there_are_only_such_is_no_map(self, own_valkey_cluster):
        cluster = own_valkey_cluster(replicas=0)
        with node_client(cluster.nodes[0]) as client:
            client.config_set("cluster-preferred-endpoint-type", "hostname")
        link = ClusterLink(ClusterEndpoint(tuple(RedisEndpoint(port=node.port) for node in cluster.nodes)))
        for _ in range(5):
            assert link._read_map(), "another node knows the addresses"
        assert None not in link._by_slot
        link.close()


def announce(cluster, *nodes):
    for node in nodes:
        with node_client(node) as client:
            client.config_set("cluster-announce-hostname", "localhost")

    def told():
        with node_client(cluster.nodes[0]) as client:
            client.set_response_callback("CLUSTER SLOTS", lambda answer, **_: answer)
            named = {
                primary[1]
                for _, _, primary in client.execute_command("CLUSTER SLOTS")
                if primary[0] == b"localhost"
            }
            return named >= {node.port for node in nodes}

    within_30_seconds(told)


def asks(link, names):
    with contextlib.suppress(RedisAwayError):
        return [link.ask_one(encode_command("GET", name), slot) for name, slot in names] == [None] * len(names)
    return False


class TestEmptiedNode:
    def test_is_not_taken_for_unknown_keys_while_other_nodes_answer_for_theirs(
        self, project, worker, valkey_cluster
    ):
        marked = project()
        texts = [generate_api_key(Mode.LIVE) for _ in range(MANY)]
        by_node = {}
        for text in texts:
            bucket = redis_names.key_bucket(hash_api_key(text))
            marker = redis_names.projection_marker(bucket)
            marked.client.set(marker, "1")
            by_node.setdefault(valkey_cluster.primary_of(redis_names.slot_of(marker)).port, []).append(text)
        emptied = valkey_cluster.nodes[0]
        with node_client(emptied) as client:
            client.flushall()
        for port, there in by_node.items():
            expected = "unavailable" if port == emptied.port else "unknown_key"
            assert {make_call(text).code for text in there} == {expected}


class TestNews:
    def test_of_any_node_is_heard_and_again_when_the_node_listened_to_is_gone(self, own_valkey_cluster):
        cluster = own_valkey_cluster(replicas=0)
        seeds = tuple(RedisEndpoint(port=node.port) for node in cluster.nodes)
        link, heard = ClusterLink(ClusterEndpoint(seeds)), Heard()
        news = News(link.some_endpoint, heard)
        news.start()
        first = subscribed_node(cluster)
        publish_until_heard(next(node for node in cluster.nodes if node is not first), heard)
        first.kill()
        heard.clear()
        second = subscribed_node(cluster)
        publish_until_heard(next(node for node in cluster.nodes if node not in {first, second}), heard)
        news.stop()


class TestFailover:
    def test_of_a_primary_ends_by_itself_and_consumes_nothing_twice(self, own_valkey_cluster, start_worker):
        cluster = own_valkey_cluster()
        start_worker(cluster.url)
        steady = grant(windows=(), quota=None)
        there = {}
        for number in range(MANY):
            account = Projected(cluster.url, account=f"acc_{number}", grant=steady)
            there.setdefault(cluster.primary_of(slot_of_account(account.account.id)).port, []).append(account)
        victim = cluster.primary_of(slot_of_account("acc_1"))
        hit = next(account for account in there[victim.port] if account.account.id == "acc_1")
        others = [accounts[0] for port, accounts in there.items() if port != victim.port]
        for account in (hit, *others):
            assert call_number(make_call(account.text)) == 1
        node_client(victim).wait(1, 5_000)
        victim.kill()
        assert call_number(make_call(hit.text)) == 0, "decided by the plan's policy"
        codes, numbers = set(), []
        deadline = time.monotonic() + 30
        while not numbers or numbers[-1] == 0:
            assert time.monotonic() < deadline
            kong = make_call(hit.text)
            codes.add(kong.code)
            numbers.append(call_number(kong))
            assert call_number(make_call(others[0].text)) > 1, "the other nodes' accounts notice nothing"
            gevent.sleep(0.05)
        assert codes == {"served"}
        assert numbers[-1] == 2, "one call before, and this one: those between never reached a server"
        assert hit.counters()["calls"] == 2
        for accounts in there.values():
            for account in accounts:
                account.close()

    def test_refuses_calls_of_closed_plans_until_it_is_over(self, own_valkey_cluster, start_worker):
        cluster = own_valkey_cluster()
        start_worker(cluster.url)
        account = Projected(cluster.url, grant=grant(redis_down=RedisDownPolicy.CLOSED))
        assert make_call(account.text).served
        victim = cluster.primary_of(slot_of_account("acc_1"))
        node_client(victim).wait(1, 5_000)
        victim.pause()
        try:
            assert make_call(account.text).code == "unavailable"
            within_30_seconds(lambda: make_call(account.text).served)
        finally:
            victim.resume()
        cluster.wait_whole()
        assert make_call(account.text).served, "the old primary came back as a replica"
        account.close()


class Heard(list):
    """Stands in for the cache of records."""

    forget_key = list.append

    def forget_unknown(self): ...


def subscribed_node(cluster):
    """The node that the news are listened to at."""
    channel, found = redis_names.INVALIDATIONS_CHANNEL, []

    def look():
        for node in cluster.nodes:
            with contextlib.suppress(redis.ConnectionError), node_client(node) as client:
                if dict(client.pubsub_numsub(channel))[channel.encode()]:
                    found.append(node)
        return bool(found)

    within_30_seconds(look)
    return found[0]


def publish_until_heard(node, heard):
    def published():
        with node_client(node) as client:
            client.publish(redis_names.INVALIDATIONS_CHANNEL, "key:abc")
        gevent.sleep(0.05)
        return "abc" in heard

    within_30_seconds(published)


@contextlib.contextmanager
def moving(cluster, slot):
    """A slot on its way from its node to another one, and back at the end; yields what completes the move."""
    source = cluster.primary_of(slot)
    target = next(node for node in cluster.nodes if node is not source)
    begin_move(slot, source, target)
    yield lambda: complete_move(cluster, slot, source, target)
    complete_move(cluster, slot, source, target)
    begin_move(slot, target, source)
    complete_move(cluster, slot, target, source)


def begin_move(slot, source, target):
    for node, state, other in ((target, "IMPORTING", source), (source, "MIGRATING", target)):
        with node_client(other) as client:
            other_id = client.execute_command("CLUSTER MYID")
        with node_client(node) as client:
            client.execute_command("CLUSTER SETSLOT", slot, state, other_id)


def complete_move(cluster, slot, source, target):
    if cluster.primary_of(slot) is target:
        return
    move_names(slot, source, target)
    with node_client(target) as client:
        target_id = client.execute_command("CLUSTER MYID")
    for node in (target, source, *cluster.nodes):
        with node_client(node) as client:
            client.execute_command("CLUSTER SETSLOT", slot, "NODE", target_id)


def move_names(slot, source, target):
    with node_client(source) as client:
        names = client.execute_command("CLUSTER GETKEYSINSLOT", slot, 100)
        if names:
            client.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *names)
