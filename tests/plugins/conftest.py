from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
import redis

from devstack.stores.valkey import EmbeddedValkey
from kong_plugins.parts import worker as worker_module
from kong_plugins.parts.settings import read_settings
from kong_plugins.parts.worker import Worker
from kong_plugins.plugins import km_monetize
from tests.plugins.fakes import PRODUCT, SECRET, FakeKong, Projected
from tests.plugins.limits import TIMED_SCRIPT, Timed


@pytest.fixture(scope="session")
def client(valkey_server: EmbeddedValkey) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey_server.url) as client:
        yield client


@pytest.fixture(scope="session")
def timed(client: redis.Redis) -> Callable[..., Timed]:
    """Makes a caller whose limit script runs at a clock that the test moves."""
    script = client.register_script(TIMED_SCRIPT)
    return lambda **changes: Timed(client, script, **changes)


@pytest.fixture(autouse=True)
def current_loop_time() -> None:
    """Let gevent's loop look at the clock: between tests it stands, and timeouts counted from then end at once."""
    gevent.get_hub().loop.update_now()


@pytest.fixture
def start_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Worker]]:
    """Makes the process's worker anew, as a fork would; the last one made is the current one."""
    made: list[Worker] = []

    def start(url: str, **environment: str) -> Worker:
        settings = read_settings({"KM_REDIS_URL": url, "KM_GATEWAY_SECRET": SECRET, **environment})
        made.append(Worker(settings))
        monkeypatch.setattr(worker_module._slot, "worker", made[-1], raising=False)
        return made[-1]

    yield start
    for worker in made:
        worker.stop()


@pytest.fixture
def worker(redis_url: str, start_worker: Callable[..., Worker]) -> Worker:
    return start_worker(redis_url)


@pytest.fixture
def project(redis_url: str) -> Iterator[Callable[..., Projected]]:
    """Writes an account with a key into the shared Valkey."""
    made: list[Projected] = []

    def write(**changes: Any) -> Projected:
        made.append(Projected(redis_url, **changes))
        return made[-1]

    yield write
    for projected in made:
        projected.close()


@pytest.fixture
def project_in() -> Iterator[Callable[..., Projected]]:
    """The same for a Valkey of the test's own."""
    made: list[Projected] = []

    def write(url: str, **changes: Any) -> Projected:
        made.append(Projected(url, **changes))
        return made[-1]

    yield write
    for projected in made:
        projected.close()


@pytest.fixture
def call(worker: Worker) -> Callable[..., FakeKong]:
    """One request through km-monetize with the key in `apikey`."""
    return make_call


def make_call(key: Any = None, *, config: dict[str, Any] | None = None, **facts: Any) -> FakeKong:
    headers = facts.pop("headers", {})
    if key is not None:
        headers = {"apikey": key, **headers}
    kong = FakeKong(headers, **facts)
    km_monetize.Plugin({"api_product": PRODUCT, **(config or {})}).access(kong)
    return kong
