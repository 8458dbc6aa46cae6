"""Gateways and the upstream they proxy to, as processes."""

import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devstack.children import start_child
from devstack.ports import free_port, is_listening
from tests.devstack.support import REPOSITORY, RunningGateway


@pytest.fixture(scope="session")
def upstream_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The sample upstream, as a process."""
    port = free_port()
    log = tmp_path_factory.mktemp("upstream") / "upstream.log"
    child = start_child(
        [sys.executable, "-m", "devstack.upstream", "--port", str(port)], cwd=REPOSITORY, log_path=log
    )
    child.wait_until(lambda: is_listening(port))
    yield port
    child.stop()


@pytest.fixture
def new_gateway(upstream_port: int) -> Iterator[Callable[..., RunningGateway]]:
    """Makes gateways that the test starts, changes and kills."""
    made: list[RunningGateway] = []
    with tempfile.TemporaryDirectory(prefix="km-gateway-") as directory:

        def make(**options: Any) -> RunningGateway:
            place = Path(directory) / str(len(made))
            place.mkdir()
            made.append(RunningGateway(place, upstream_port, **options))
            return made[-1]

        yield make
        for gateway in made:
            gateway.stop()


@pytest.fixture(scope="session")
def shared_gateway(upstream_port: int) -> Iterator[RunningGateway]:
    with tempfile.TemporaryDirectory(prefix="km-gateway-") as directory:
        running = RunningGateway(Path(directory), upstream_port)
        running.start(running.configuration())
        yield running
        running.stop()


@pytest.fixture
def gateway(shared_gateway: RunningGateway) -> RunningGateway:
    """A running gateway with the configuration it came with and a spool of its own; never kill this one."""
    shared_gateway.spool = shared_gateway.directory / f"{secrets.token_hex(4)}.log"
    shared_gateway.apply(shared_gateway.configuration())
    return shared_gateway
