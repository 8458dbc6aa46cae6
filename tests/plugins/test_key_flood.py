"""A flood of random well-formed keys: what Redis sees of it, and what others notice."""

import time
from itertools import count

import gevent
import pytest
import redis

from gateway_contract import api_keys
from gateway_contract.modes import Mode
from kong_plugins.parts import key_flood
from kong_plugins.parts.key_flood import MANY_UNKNOWN_KEYS, MOST_ADDRESSES, KeyFlood, network_of
from kong_plugins.parts.record_cache import Missing
from kong_plugins.plugins import km_monetize
from tests.plugins.fakes import PRODUCT, FakeKong, grant

PER_SECOND = 100


def random_key() -> str:
    return api_keys.generate_api_key(Mode.LIVE)


class Bench:
    """A budget of 100 a second, on a clock that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.reads = self.asked = 0
        self.flood = KeyFlood(PER_SECOND, clock=lambda: self.now)

    def look_up(self, address: str = "192.0.2.1", found: object = Missing.UNKNOWN):
        def read(_: str) -> object:
            self.reads += 1
            return found

        def ask() -> str:
            self.asked += 1
            return address

        return self.flood.look_up("hash", read=read, address=ask)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def addresses():
    return (f"198.51.{number // 250 % 250}.{number % 250}" for number in count())


class TestBudget:
    def test_changes_nothing_while_half_of_it_is_left(self, bench):
        assert {bench.look_up() for _ in range(PER_SECOND // 2)} == {Missing.UNKNOWN}
        assert (bench.reads, bench.asked) == (PER_SECOND // 2, 0)

    def test_bounds_reads_of_one_address_by_what_it_sent_lately(self, bench):
        answers = [bench.look_up() for _ in range(10 * PER_SECOND)]
        assert bench.reads <= PER_SECOND // 2 + MANY_UNKNOWN_KEYS + 1
        assert answers.count(Missing.UNKNOWN) == bench.reads, "nobody looked, so nobody can say: unknown"
        assert answers.count(Missing.UNAVAILABLE) == len(answers) - bench.reads

    def test_bounds_reads_of_all_addresses_together(self, bench):
        answers = [bench.look_up(address) for _, address in zip(range(10 * PER_SECOND), addresses(), strict=False)]
        assert bench.reads == PER_SECOND
        assert answers.count(Missing.UNAVAILABLE) == 9 * PER_SECOND

    def test_comes_back_with_time_and_no_further_than_a_second_of_it(self, bench):
        for address in (next(each) for each in [addresses()] for _ in range(3 * PER_SECOND)):
            bench.look_up(address)
        assert bench.reads == PER_SECOND
        bench.now += 3600
        for _, address in zip(range(3 * PER_SECOND), addresses(), strict=False):
            bench.look_up(address)
        assert bench.reads <= 2 * PER_SECOND

    def test_is_not_used_up_by_keys_that_exist(self, bench):
        for _ in range(10 * PER_SECOND):
            assert bench.look_up(found="a key") == "a key"
        assert (bench.reads, bench.asked) == (10 * PER_SECOND, 0)

    def test_lets_other_addresses_through_during_a_flood_of_one(self, bench):
        for _ in range(5 * PER_SECOND):
            bench.look_up("203.0.113.9")
        assert bench.look_up("192.0.2.1", found="a key") == "a key"

    def test_forgives_an_address_in_time(self, bench):
        for _ in range(5 * PER_SECOND):
            bench.look_up()
        bench.now += key_flood.LATELY_SECONDS
        before = bench.reads
        bench.look_up()
        assert bench.reads == before + 1

    def test_counts_on_when_a_clock_stands_still(self, bench):
        for _ in range(PER_SECOND):
            bench.look_up(found=Missing.UNAVAILABLE)
        assert bench.look_up(next(addresses())) is Missing.UNAVAILABLE

    def test_remembers_a_bounded_number_of_addresses(self, bench):
        for _, address in zip(range(3 * MOST_ADDRESSES), addresses(), strict=False):
            bench.now += 1 / PER_SECOND
            bench.flood._left = 2
            bench.look_up(address)
        assert len(bench.flood._unknown) <= MOST_ADDRESSES


class TestAddress:
    @pytest.mark.parametrize(
        ("address", "network"),
        [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
            ("", ""),
            ("unix:", "unix:"),
        ],
    )
    def test_stands_for_what_one_caller_can_choose_from(self, address, network):
        assert network_of(address) == network


class TestFlood:
    FLOOD = 20_000

    def reads_of(self, client) -> int:
        stats = client.info("commandstats")
        return stats.get("cmdstat_get", {"calls": 0})["calls"]

    def test_of_random_keys_neither_hammers_redis_nor_hurts_good_callers(
        self, project, start_worker, redis_url, monkeypatch
    ):
        worker = start_worker(redis_url, KM_COLD_READS_PER_SECOND=str(PER_SECOND))
        good = [project(account=f"acc_{number}", grant=grant(windows=(), quota=None)) for number in range(20)]
        good[0].mark_all()
        plugin = km_monetize.Plugin({"api_product": PRODUCT})

        def send(key: str, address: str) -> str:
            kong = FakeKong({"apikey": key}, address=address)
            plugin.access(kong)
            return kong.code

        for one in good:
            assert send(one.text, "192.0.2.1") == "served"
        client = redis.Redis.from_url(redis_url)
        before, began = self.reads_of(client), time.monotonic()
        actions = {name: counter.value for name, counter in key_flood._actions.items()}
        codes: dict[str, int] = {}
        served = 0
        for number, address in zip(range(self.FLOOD), addresses(), strict=False):
            code = send(random_key(), address)
            codes[code] = codes.get(code, 0) + 1
            if number % 20 == 0:
                served += send(good[number // 20 % len(good)].text, address) == "served"
        seconds = time.monotonic() - began
        reads = self.reads_of(client) - before
        assert served == self.FLOOD // 20
        assert set(codes) == {"unknown_key", "unavailable"}
        assert reads <= PER_SECOND * (1 + seconds) + 1
        assert all(worker.cache.knows(one.key_hash) is not None for one in good)
        grown = {name: counter.value - actions[name] for name, counter in key_flood._actions.items()}
        assert grown["refused"] == codes["unavailable"]
        assert grown["address_asked"] >= grown["refused"]
        client.close()

    def test_that_ends_leaves_a_new_key_served_at_once(self, project, start_worker, redis_url, call):
        start_worker(redis_url, KM_COLD_READS_PER_SECOND="50")
        project().mark_all()
        for _, address in zip(range(200), addresses(), strict=False):
            call(random_key(), address=address)
        new = project()
        deadline = time.monotonic() + 10
        while not call(new.text, address="192.0.2.200").served:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def test_tells_refused_callers_when_to_come_again(self, project, start_worker, redis_url, call):
        start_worker(redis_url, KM_COLD_READS_PER_SECOND="2")
        project().mark_all()
        for _, address in zip(range(50), addresses(), strict=False):
            kong = call(random_key(), address=address)
            if kong.status == 503:
                break
        assert (kong.code, kong.answer["Retry-After"]) == ("unavailable", "1")
        assert kong.names == ["request.get_headers", "client.get_forwarded_ip", "response.exit"]

    def test_tells_no_customer_at_its_address_that_their_key_is_unknown(
        self, project, start_worker, redis_url, call
    ):
        flood = start_worker(redis_url, KM_COLD_READS_PER_SECOND="100").gate._flood
        flood._clock = lambda now=flood._counted_at: now
        project().mark_all()
        customer = project()
        before = key_flood._actions["refused_by_address"].value
        codes = {call(random_key()).code for _ in range(100)}
        kong = call(customer.text)
        assert (kong.status, kong.code, kong.answer["Retry-After"]) == (503, "unavailable", "1")
        assert codes == {"unknown_key", "unavailable"}
        assert key_flood._actions["refused_by_address"].value > before

    def test_of_one_wrong_key_is_looked_up_once_a_second(self, project, worker, call, monkeypatch):
        project().mark_all()
        reads = []
        read = worker.cache.read
        monkeypatch.setattr(worker.cache, "read", lambda key_hash: reads.append(key_hash) or read(key_hash))
        monkeypatch.setattr(worker.cache, "_clock", lambda: 5.0)
        wrong = random_key()
        assert {call(wrong).code for _ in range(50)} == {"unknown_key"}
        assert len(reads) == 1

    def test_never_evicts_known_keys(self, project, start_worker, redis_url, call):
        worker = start_worker(redis_url, KM_CACHED_KEYS="100", KM_COLD_READS_PER_SECOND="100000")
        account = project(grant=grant(windows=()))
        account.mark_all()
        assert call(account.text).served
        for _ in range(1000):
            call(random_key())
        assert worker.cache.knows(account.key_hash).record.id == account.key.id

    def test_in_many_greenlets_takes_no_more_than_the_budget(self, project, start_worker, redis_url):
        worker = start_worker(redis_url, KM_COLD_READS_PER_SECOND="10")
        project().mark_all()
        plugin = km_monetize.Plugin({"api_product": PRODUCT})
        kongs = [
            FakeKong({"apikey": random_key()}, address=address)
            for _, address in zip(range(200), addresses(), strict=False)
        ]
        began = time.monotonic()
        gevent.joinall([gevent.spawn(plugin.access, kong) for kong in kongs], raise_error=True)
        looked_up = sum(kong.code == "unknown_key" for kong in kongs)
        assert looked_up <= 10 * (1 + time.monotonic() - began) + 1
        assert worker.cache._reading == {}
